def origin_of(url: str) -> str:
    from yarl import URL

    parsed = URL(url)
    return f"{parsed.scheme}://{parsed.host}:{parsed.port}"

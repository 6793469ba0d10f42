"""Periodic work: beat calls these by name (config/settings.py)."""

from uuid import UUID

from celery import shared_task

from usage import ledger, notices


@shared_task(name="usage.tasks.sweep")
def sweep() -> int:
    """Close usage rows whose owner is gone; how many. Harmless to run twice, at once, or late (I15)."""
    return ledger.sweep()


@shared_task(name="usage.tasks.remind")
def remind() -> int:
    """Remind users of models that retire within weeks; how many notices were new."""
    return notices.remind()


@shared_task(name="usage.tasks.probe", ignore_result=True)
def probe(pk: str) -> None:
    """Carry out one waiting capability probe. A second delivery finds it taken and does nothing (F28)."""
    from usage import probing

    probing.run_now(UUID(pk))

"""Periodic work of the chat, called by beat."""

from __future__ import annotations

from celery import shared_task

from chat import generation


@shared_task
def sweep() -> int:
    """End open replies whose process died; returns how many (I8)."""
    return generation.sweep()

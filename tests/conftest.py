"""The cast and the ground rules of every test: Alice owns things, Bob is another user, Sam is staff."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.test import Client


@pytest.fixture
def alice(db):
    """The owner."""
    return get_user_model().objects.create_user("alice", "alice@example.org", "alice's password")


@pytest.fixture
def bob(db):
    """Another signed-in user, who owns nothing of Alice's."""
    return get_user_model().objects.create_user("bob", "bob@example.org", "bob's password")


@pytest.fixture
def sam(db):
    """Staff with every permission."""
    return get_user_model().objects.create_superuser("sam", "sam@example.org", "sam's password")


@pytest.fixture
def alice_client(alice):
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def bob_client(bob):
    client = Client()
    client.force_login(bob)
    return client


@pytest.fixture
def sam_client(sam):
    client = Client()
    client.force_login(sam)
    return client

"""The Python SDK: builds and signs commands, submits them, and checks what comes back."""

from nocturne.client.building import Author, Draft, data_payload, json_payload
from nocturne.client.client import Client
from nocturne.client.results import (
    AppliedThrough,
    Committed,
    Level,
    NotConfigured,
    Place,
    Refused,
    Result,
    Session,
    State,
    Status,
    Undecided,
)
from nocturne.client.sync import SyncClient
from nocturne.core.commands import Opening
from nocturne.core.errors import Malformed, NocturneError, Unavailable
from nocturne.core.receipts import Reason

__all__ = [
    "AppliedThrough",
    "Author",
    "Client",
    "Committed",
    "Draft",
    "Level",
    "Malformed",
    "NocturneError",
    "NotConfigured",
    "Opening",
    "Place",
    "Reason",
    "Refused",
    "Result",
    "Session",
    "State",
    "Status",
    "SyncClient",
    "Unavailable",
    "Undecided",
    "data_payload",
    "json_payload",
]

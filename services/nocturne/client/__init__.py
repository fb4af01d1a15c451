"""The Python SDK: builds and signs commands, submits them, and checks what comes back."""

from nocturne.client.building import Author, Draft, data_payload, json_payload
from nocturne.client.client import Client
from nocturne.client.credentials import Credentials
from nocturne.client.folding import Folded
from nocturne.client.results import (
    AccessDenied,
    AppliedThrough,
    Committed,
    CredentialsFault,
    LedgerDegraded,
    Level,
    NotConfigured,
    Place,
    Refused,
    Result,
    Session,
    State,
    Status,
    TlsRefused,
    Undecided,
)
from nocturne.client.sealing import (
    Closed,
    KeyRing,
    Opened,
    SubjectKey,
    TooLarge,
    Why,
    make_subject_key,
    payload_of,
)
from nocturne.client.subject_store import SubjectStore
from nocturne.client.sync import SyncClient
from nocturne.core.commands import Opening
from nocturne.core.errors import Malformed, NocturneError, Unavailable
from nocturne.core.receipts import Reason

__all__ = [
    "AccessDenied",
    "AppliedThrough",
    "Author",
    "Client",
    "Closed",
    "Committed",
    "Credentials",
    "CredentialsFault",
    "Draft",
    "Folded",
    "KeyRing",
    "LedgerDegraded",
    "Level",
    "Malformed",
    "NocturneError",
    "NotConfigured",
    "Opened",
    "Opening",
    "Place",
    "Reason",
    "Refused",
    "Result",
    "Session",
    "State",
    "Status",
    "SubjectKey",
    "SubjectStore",
    "SyncClient",
    "TlsRefused",
    "TooLarge",
    "Unavailable",
    "Undecided",
    "Why",
    "data_payload",
    "json_payload",
    "make_subject_key",
    "payload_of",
]

"""Imports: other people's histories as sessions of a ledger, once, however often run.

async with Client(command, query, genesis=…) as client:
    target = await ClientTarget.of(client)
    done = await import_xes(target, author, Path("permits.xes.gz"))
    print(done.imported, done.skipped, done.sessions)
"""

from nocturne.imports.importers import (
    ClientTarget,
    import_csv,
    import_jsonl,
    import_text,
    import_xes,
)
from nocturne.imports.into import ImportRefused
from nocturne.imports.many import (
    Brought,
    ImportStopped,
    NoSuchKind,
    NotThisSource,
    Target,
    bring_all,
)
from nocturne.imports.records import Record, Source, SourceFault
from nocturne.imports.tables import Columns

__all__ = [
    "Brought",
    "ClientTarget",
    "Columns",
    "ImportRefused",
    "ImportStopped",
    "NoSuchKind",
    "NotThisSource",
    "Record",
    "Source",
    "SourceFault",
    "Target",
    "bring_all",
    "import_csv",
    "import_jsonl",
    "import_text",
    "import_xes",
]

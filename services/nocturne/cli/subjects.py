"""subjects: the keys of sealed payloads: listed, shared with a reader, taken in, destroyed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from nocturne.cli import authors, surroundings
from nocturne.cli.consent import confirm
from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.screen import Column, table
from nocturne.cli.subject_keys import as_bad_use, keep, store_of
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.words import count_text
from nocturne.cli.writing import author_named
from nocturne.client.sealing import SubjectKey
from nocturne.client.sharing import (
    SHARE_BYTES_MAX,
    Share,
    make_share,
    open_share,
    parse_share,
    print_share,
)
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import format_id
from nocturne.core.json_fields import JsonObject
from nocturne.core.keys import PublicKey, format_key, parse_key
from nocturne.runtime.keys import load_seed

subjects = typer.Typer(
    help="Keys of sealed payloads: list, share, import and destroy them.", no_args_is_help=True
)

_SUBJECTS: Final = (Column("subject", "bold"), Column("subject key"), Column("file", "dim"))

SubjectArgument = Annotated[str, typer.Argument(metavar="SUBJECT", show_default=False)]


@subjects.command("list")
def subjects_list(
    context: typer.Context, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """List the subjects whose keys are here."""
    around = surroundings.of(context)
    store = store_of(around.home(home))
    found = store.every()
    if as_json:
        for name, key in found:
            around.emit(
                {
                    "subject": name,
                    "subjectKey": format_id(key.id),
                    "file": str(store.file(name)),
                }
            )
    elif found:
        rows = [[name, format_id(key.id), str(store.file(name))] for name, key in found]
        around.out.print(table(_SUBJECTS, rows))
    elif not store.problems:
        around.say("No subject key here: 'nocturne submit … --seal SUBJECT' makes one.")
    if store.problems:
        raise Failure(
            ExitCode.FAILED,
            f"{count_text(len(store.problems), 'file')} of subject keys cannot be used, and what "
            "they sealed cannot be read.",
            store.problems,
        )


@subjects.command("share")
def subjects_share(
    context: typer.Context,
    subject: SubjectArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    reader: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="KEY",
            help="The reader's public key, ed25519-…, or a key of this home.",
            show_default=False,
        ),
    ],
    as_key: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="KEY", help="Sign with this key.", show_default=authors.DEFAULT
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write a subject's key into FILE, for one reader to open and for nobody else."""
    around = surroundings.of(context)
    key = _existing(around, home, subject)
    public = _public_key(around, home, reader)
    author = author_named(around, home, as_key)
    try:
        share = make_share(key, public, author.signer)
    except Malformed as fault:
        raise bad_use(f"--with takes a reader's public key ({fault}).") from fault
    with file.open("xb") as opened:
        opened.write(print_share(share))
    if as_json:
        around.emit(_share_json(share, file))
        return
    around.out.print(Text.assemble(("✓ ", "green"), (subject, "bold"), f"  {format_id(key.id)}"))
    around.say(
        f"Give {file} to the holder of {format_key(public)}, who reads it with 'nocturne subjects "
        "import': it reads everything sealed with this key, now and later."
    )


@subjects.command("import")
def subjects_import(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option(metavar="SUBJECT", help="Keep it as this.", show_default="the key's id"),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Take in a subject's key that was shared with a key of this home."""
    around = surroundings.of(context)
    with file.open("rb") as opened:
        data = opened.read(SHARE_BYTES_MAX + 1)
    try:
        share = parse_share(data)
        key = open_share(share, _seed_of(around, home, share.reader))
    except Malformed as fault:
        raise Failure(
            ExitCode.FAILED, f"{file} holds no subject key for this home ({fault})."
        ) from fault
    named = name or format_id(key.id)
    store = store_of(around.home(home))
    with as_bad_use():
        kept = keep(around.home(home), named, key)
    if kept != key:
        raise bad_use(
            f"There is another key for {named} already: keep this one as another with --name."
        )
    if as_json:
        around.emit(_share_json(share, store.file(named)))
        return
    around.out.print(Text.assemble(("✓ ", "green"), (named, "bold"), f"  {format_id(key.id)}"))
    around.say(f"From the holder of {format_key(share.giver)}. Whoever that is can read it too.")


@subjects.command("destroy")
def subjects_destroy(
    context: typer.Context,
    subject: SubjectArgument,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Destroy a subject's key: everything sealed with it is erased. It cannot be undone."""
    around = surroundings.of(context)
    key = _existing(around, home, subject)
    confirm(
        around,
        f"Nothing sealed for {subject} can ever be read again from this home, and by nobody else "
        "but those you shared the key with.",
        is_sure,
    )
    store_of(around.home(home)).destroy(subject)
    if as_json:
        around.emit({"subject": subject, "subjectKey": format_id(key.id), "destroyed": True})
        return
    around.out.print(Text.assemble(("✓ destroyed ", "green"), format_id(key.id)))
    around.say("Copies of it, in backups and with readers, are not reached by this.")


# -----------------------------------------------------------------------------------------------


def _existing(around: Surroundings, home: Path | None, subject: str) -> SubjectKey:
    with as_bad_use():
        found = store_of(around.home(home)).named(subject)
    if found is None:
        raise bad_use(f"There is no key of {subject} here: 'nocturne subjects list' shows all.")
    return found


def _public_key(around: Surroundings, home: Path | None, text: str) -> PublicKey:
    if text.startswith("sha256-"):
        raise bad_use(
            "--with takes a public key, and an author id is only the hash of one: its owner finds "
            "the key in 'nocturne keys list'."
        )
    if text.startswith("ed25519-"):
        try:
            return parse_key(text)
        except Malformed as fault:
            raise bad_use(f"--with takes a public key ({fault}).") from fault
    return authors.load(around.home(home), text).signer.key[0]


def _seed_of(around: Surroundings, home: Path | None, reader: PublicKey) -> bytes:
    """The private part of whichever key of this home, old or new, the share is for."""
    for author in authors.every(around.home(home)):
        for key, file in zip(author.keys, author.files, strict=True):
            if key == (reader,):
                return load_seed(file)
    raise Malformed(f"it is for the holder of {format_key(reader)}, which is no key of this home")


def _share_json(share: Share, file: Path) -> JsonObject:
    return {
        "subjectKey": format_id(share.subject_key_id),
        "for": format_key(share.reader),
        "from": format_key(share.giver),
        "file": str(file),
    }

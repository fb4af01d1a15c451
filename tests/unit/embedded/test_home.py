from pathlib import Path

import pytest

from nocturne.embedded import home
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home


def test_a_named_home_comes_before_the_setting_and_that_before_the_usual_one() -> None:
    setting = {"NOCTURNE_HOME": "/srv/ledger"}
    assert home.find(Path("/named"), setting).root == Path("/named")
    assert home.find(None, setting).root == Path("/srv/ledger")
    assert home.find(None, {}).root == Path.home() / ".nocturne"


def test_a_relative_home_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert home.find(Path("here"), {}).root == tmp_path / "here"


def test_keys_are_closed_to_everyone_else(tmp_path: Path) -> None:
    place = Home(tmp_path / "home")
    place.create()
    assert (place.root / "keys").stat().st_mode & 0o077 == 0


def test_a_home_that_cannot_be_made_is_said_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"cannot be used.*--home"):
        Home(tmp_path / "file" / "home").create()

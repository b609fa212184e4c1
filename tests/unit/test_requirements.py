"""What process types wait for, by the settings: types by name, backing services by variable."""

from __future__ import annotations

import pytest

from procman.config import ProcessSettings, Settings
from procman.errors import ConfigError, SourceRef
from procman.procfile import ProcessType
from procman.requirements import needs_by_type, reachable_services, services_by_type

TYPES = [ProcessType(name, "run", SourceRef("Procfile", at)) for at, name in enumerate(("web", "worker", "DB"), 1)]
LINE = SourceRef("procman.toml", 7)
URL = "postgresql://me:secret@localhost/app"


def settings(**needs: tuple[str, ...]) -> Settings:
    return Settings("/app", processes={name: ProcessSettings(LINE, needs=words) for name, words in needs.items()})


def test_a_name_of_the_procfile_is_a_type_and_any_other_a_variable() -> None:
    needs = needs_by_type(TYPES, settings(web=("DB", "DATABASE_URL", "worker"), worker=()))
    assert needs["web"].types == ("DB", "worker")
    assert needs["web"].variables == ("DATABASE_URL",)
    assert needs["worker"].types == needs["worker"].variables == ()
    assert "DB" not in needs


def test_two_types_with_one_service_wait_for_the_same_object() -> None:
    said = settings(web=("DATABASE_URL",), worker=("DATABASE_URL",))
    services = services_by_type(needs_by_type(TYPES, said), said, {"DATABASE_URL": URL})
    assert services["web"][0] is services["worker"][0]
    assert services["web"][0].variable == "DATABASE_URL"


def test_what_a_section_sets_counts_for_its_type_alone() -> None:
    said = settings(web=("DATABASE_URL",), worker=("DATABASE_URL",))
    own = said.processes["web"]._replace(env={"DATABASE_URL": "redis://localhost"})
    said = said._replace(processes={**said.processes, "web": own})
    services = services_by_type(needs_by_type(TYPES, said), said, {"DATABASE_URL": URL})
    assert [services[name][0].kind for name in ("web", "worker")] == ["Redis", "PostgreSQL"]


def test_all_that_is_missing_is_told_at_once_and_no_value() -> None:
    said = settings(web=("DATABASE_URL", "REDIS_URL"), worker=("QUEUE_URL",))
    with pytest.raises(ConfigError) as raised:
        services_by_type(needs_by_type(TYPES, said), said, {"REDIS_URL": "", "QUEUE_URL": "hunter2"})
    lines = str(raised.value).split("\n")
    names = [line.partition(" needs ")[0].rpartition(" ")[2] for line in lines]
    assert names == ["web", "web", "worker"]
    assert all(line.startswith("procman.toml:7: ") for line in lines)
    assert "it is not set" in lines[0]
    assert "hunter2" not in str(raised.value)


def test_a_command_of_no_type_waits_for_what_is_set() -> None:
    said = settings(web=("DATABASE_URL", "REDIS_URL"), worker=("DATABASE_URL", "QUEUE_URL"))
    found = reachable_services(needs_by_type(TYPES, said), {"DATABASE_URL": URL, "QUEUE_URL": "nonsense"})
    assert [service.variable for service in found] == ["DATABASE_URL"]

"""Service endpoints: what is watched, who owns it, and what changed since somebody last looked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from servmon.errors import ConflictError, LostUpdateError, NotFoundError
from servmon.model import Endpoint
from servmon.store import rows
from servmon.store.pool import Executor
from servmon.tasks import in_turns

# What a definition consists of beside its id; key, revision and the times are the database's own. The id is never
# set anew: that would lock out whoever stores an outage of the endpoint.
_NAMES = (
    "name",
    "url",
    "protocol",
    "check_interval",
    "timeout",
    "retries",
    "expected_status_code",
    "expected_response_pattern",
    "is_active",
    "retry_interval",
    "detection_threshold",
    "detection_window",
    "degraded_outage_after",
    "recovery_threshold",
    "severity",
    "degraded_threshold_ms",
    "depends_on",
    "tags",
    "site",
    "options",
    "source",
)
_COLUMNS = ", ".join(_NAMES)
_WANTED = ", ".join(f"w.{name}" for name in _NAMES)
_STORED = ", ".join(f"s.{name}" for name in _NAMES)


@dataclass(frozen=True, slots=True)
class Changes:
    """The endpoints that changed, inactive and deleted ones included, and the revision they lead to.

    ``complete`` says that these are all endpoints there are, so any other is to be forgotten.
    """

    revision: int
    endpoints: list[Endpoint]
    complete: bool


@dataclass(frozen=True, slots=True)
class Provisioned:
    """The ids of the endpoints that were added, changed, taken out of use, or left to their other owner."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    conflicts: list[str]


_INSERT = f"""
insert into service_endpoint (id, {_COLUMNS})
select id, {_COLUMNS} from jsonb_populate_record(null::service_endpoint, $1::text::jsonb)
on conflict (id) do update
set ({_COLUMNS}) = (select {_COLUMNS} from jsonb_populate_record(null::service_endpoint, $1::text::jsonb)),
    archived_at = null
where service_endpoint.archived_at is not null
returning *
"""  # noqa: S608 - only column names stand in it


async def insert(db: Executor, endpoint: Endpoint) -> Endpoint:
    """Store a new endpoint. A deleted one of this id comes back with its history and ``endpoint``'s values.

    Raises ``ConflictError`` where the id is taken.
    """
    row = await db.fetchrow(_INSERT, rows.to_json(rows.endpoint_fields(endpoint)))
    if row is None:
        raise ConflictError(f"there is already a service endpoint with the id {endpoint.id}")
    return rows.endpoint(row)


_UPDATE = f"""
update service_endpoint
set ({_COLUMNS}) = (select {_COLUMNS} from jsonb_populate_record(null::service_endpoint, $2::text::jsonb))
where id = $1 and archived_at is null and revision = coalesce($3, revision)
returning *
"""  # noqa: S608 - only column names stand in it


async def update(db: Executor, endpoint: Endpoint, revision: int | None = None) -> Endpoint:
    """Give the endpoint of this id all of ``endpoint``'s values, if it still is of ``revision`` (``None``: any).

    Raises ``NotFoundError`` and ``LostUpdateError``.
    """
    row = await db.fetchrow(_UPDATE, endpoint.id, rows.to_json(rows.endpoint_fields(endpoint)), revision)
    if row is None:
        raise await _not_as_expected(db, endpoint.id)
    return rows.endpoint(row)


_ARCHIVE = """
update service_endpoint set archived_at = now()
where id = $1 and archived_at is null and revision = coalesce($2, revision)
returning id
"""


async def archive(db: Executor, endpoint_id: str, revision: int | None = None) -> None:
    """Delete an endpoint: it is not found any more, its history and outages stay. Raises as ``update`` does."""
    if await db.fetchval(_ARCHIVE, endpoint_id, revision) is None:
        raise await _not_as_expected(db, endpoint_id)


_GET = """
select * from service_endpoint where id = $1 and archived_at is null
"""


async def get(db: Executor, endpoint_id: str) -> Endpoint:
    """One endpoint. Raises ``NotFoundError`` where there is none, or no longer."""
    row = await db.fetchrow(_GET, endpoint_id)
    if row is None:
        raise _not_found(endpoint_id)
    return rows.endpoint(row)


_GET_ANY = """
select * from service_endpoint where id = $1
"""


async def get_any(db: Executor, endpoint_id: str) -> Endpoint:
    """One endpoint, a deleted one too. Raises ``NotFoundError``."""
    row = await db.fetchrow(_GET_ANY, endpoint_id)
    if row is None:
        raise _not_found(endpoint_id)
    return rows.endpoint(row)


@dataclass(frozen=True, slots=True)
class EndpointFilter:
    """Which endpoints; ``None`` in a field lets any pass. ``text`` is looked for in id, name, url and site."""

    protocol: str | None = None
    tag: str | None = None
    site: str | None = None
    is_active: bool | None = None
    text: str | None = None
    ids: Sequence[str] | None = None

    def among(self, known: Iterable[Endpoint]) -> Iterator[Endpoint]:
        """Those of ``known`` that it chooses, as ``_FILTERED`` does, for whoever cannot ask Postgres."""
        ids = None if self.ids is None else set(self.ids)
        for one in known:
            text = "\n".join(part for part in (one.id, one.name, one.url, one.site) if part is not None).lower()
            if (
                self.protocol in (None, one.protocol)
                and (self.tag is None or self.tag in one.tags)
                and self.site in (None, one.site)
                and self.is_active in (None, one.is_active)
                and (self.text is None or self.text.lower() in text)
                and (ids is None or one.id in ids)
            ):
                yield one


EVERYTHING = EndpointFilter()
_FILTERED = """
archived_at is null
and ($2::text is null or protocol = $2)
and ($3::text is null or $3 = any (tags))
and ($4::text is null or site = $4)
and ($5::boolean is null or is_active = $5)
and ($6::text is null or strpos(lower(concat_ws(E'\\n', id, name, url, site)), lower($6)) > 0)
and ($7::text[] is null or id = any ($7))
"""
_FORWARDS = f"""
from service_endpoint where id > coalesce($1, '') and {_FILTERED} order by id limit $8
"""
_BACKWARDS = f"""
from service_endpoint where ($1::text is null or id < $1) and {_FILTERED} order by id desc limit $8
"""


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of the endpoints: at most ``limit`` of those ``wanted``, by id, from the first one after ``after``.

    ``backwards`` it goes from the last one down.
    """

    limit: int
    after: str | None = None
    wanted: EndpointFilter = EVERYTHING
    backwards: bool = False


async def get_page(db: Executor, part: Part) -> list[Endpoint]:
    """The endpoints of one part."""
    return [rows.endpoint(row) async for row in in_turns(await _fetch(db, "select *", part))]


async def get_revisions(db: Executor, part: Part) -> list[tuple[str, int]]:
    """The ids and revisions of the endpoints of one part: a fifth of the work of reading them."""
    return [(row["id"], row["revision"]) for row in await _fetch(db, "select id, revision", part)]


async def _fetch(db: Executor, what: str, part: Part) -> list[rows.Row]:
    query = what + (_BACKWARDS if part.backwards else _FORWARDS)
    wanted = part.wanted
    filters = (wanted.protocol, wanted.tag, wanted.site, wanted.is_active, wanted.text, wanted.ids)
    found: list[rows.Row] = await db.fetch(query, part.after, *filters, part.limit)
    return found


_TAGS = """
select tag, count(*) as endpoints from service_endpoint, unnest(tags) as tag
where archived_at is null group by tag order by tag collate "C"
"""
_SITES = """
select site, count(*) as endpoints from service_endpoint
where archived_at is null and site is not null group by site order by site collate "C"
"""


async def tags(db: Executor) -> dict[str, int]:
    """How many endpoints bear each tag."""
    return {row["tag"]: row["endpoints"] for row in await db.fetch(_TAGS)}


async def sites(db: Executor) -> dict[str, int]:
    """How many endpoints stand at each site."""
    return {row["site"]: row["endpoints"] for row in await db.fetch(_SITES)}


_GET_SOME = """
select * from service_endpoint where id = any($1::text[]) and archived_at is null
"""


async def get_some(db: Executor, ids: Sequence[str]) -> list[Endpoint]:
    """Those of the endpoints ``ids`` that there are."""
    return [rows.endpoint(row) async for row in in_turns(await db.fetch(_GET_SOME, ids))]


_ACTIVE = """
select * from service_endpoint where archived_at is null and is_active order by id
"""


async def active(db: Executor) -> list[Endpoint]:
    """Every endpoint that is watched, by id."""
    return [rows.endpoint(row) for row in await db.fetch(_ACTIVE)]


# One statement, so one view of the database: what is committed meanwhile has a higher revision than is returned.
# A revision above the present one was seen in another database, or before a backup was restored.
_CHANGED_SINCE = """
with reading as (
    select revision as read_up_to, $1 = 0 or $1 < complete_from or $1 > revision as complete from change_revision
)
select r.*, e.*
from reading r
left join service_endpoint e on case when r.complete then e.archived_at is null else e.revision > $1 end
"""


async def changed_since(db: Executor, revision: int) -> Changes:
    """What changed after ``revision``; 0 stands for the beginning and gives everything."""
    found = await db.fetch(_CHANGED_SINCE, revision)
    return Changes(
        revision=found[0]["read_up_to"],
        endpoints=[rows.endpoint(row) async for row in in_turns(found) if row["id"] is not None],
        complete=found[0]["complete"],
    )


# Set-based: 12,000 endpoints are one statement, and a row that is already as wanted is not written. The revision is
# locked before any endpoint, as every change of an endpoint does, so that two such changes never wait for each other.
_PROVISION = f"""
with turn as materialized (
    select revision from change_revision for update
), wanted as materialized (
    select * from jsonb_populate_recordset(null::service_endpoint, $2::text::jsonb)
), stored as materialized (
    select * from service_endpoint
    where exists (select from turn)
    and (id in (select id from wanted) or (source = $1 and archived_at is null and is_active))
    for no key update
), foreign_owned as (
    select id from stored where source <> $1 and archived_at is null
), added as (
    insert into service_endpoint (id, {_COLUMNS})
    select id, {_COLUMNS} from wanted where id not in (select id from stored)
    on conflict (id) do nothing
    returning id
), changed as (
    update service_endpoint e
    set ({_COLUMNS}) = row ({_WANTED}), archived_at = null
    from wanted w
    join stored s on s.id = w.id
    where e.id = w.id and w.id not in (select id from foreign_owned)
    and (s.archived_at is not null or ({_STORED}) is distinct from ({_WANTED}))
    returning e.id, s.archived_at is not null as revived
), removed as (
    update service_endpoint
    set is_active = false
    where $3 and source = $1 and archived_at is null and is_active
    and id in (select id from stored) and id not in (select id from wanted)
    returning id
)
select 'conflicts' as what, id from foreign_owned
union all select 'added', id from added
union all select case when revived then 'added' else 'changed' end, id from changed
union all select 'removed', id from removed
order by 1, 2
"""  # noqa: S608 - only column names stand in it


_MISSING = """
select id, id not in (select w.id from jsonb_to_recordset($2::text::jsonb) as w (id text)) as is_missing
from service_endpoint
where source = $1 and is_active and archived_at is null
order by id
"""


_COUNT_ANEW = """
analyze service_endpoint
"""


async def missing(db: Executor, source: str, wanted: str) -> tuple[list[str], int]:
    """The ids that ``provision`` with what ``as_json`` made would remove, and the number of active ones now."""
    active = await db.fetch(_MISSING, source, wanted)
    return [row["id"] for row in active if row["is_missing"]], len(active)


def as_json(source: str, endpoints: Iterable[Endpoint]) -> str:
    """The endpoints of ``source`` as ``provision`` sends them; for thousands it takes a while, in any process."""
    return rows.to_json([{**rows.endpoint_fields(endpoint), "source": source} for endpoint in endpoints])


async def provision(
    db: Executor, source: str, endpoints: Sequence[Endpoint] | str, *, remove: bool = True
) -> Provisioned:
    """Make the endpoints that ``source`` owns exactly these, in one transaction.

    One that is missing from the list becomes inactive and keeps its history, if ``remove`` allows it. An id that
    another source owns is a conflict and stays as it is. ``endpoints`` may be what ``as_json`` made of them.
    """
    wanted = endpoints if isinstance(endpoints, str) else as_json(source, endpoints)
    done: dict[str, list[str]] = {"added": [], "changed": [], "removed": [], "conflicts": []}
    for row in await db.fetch(_PROVISION, source, wanted, remove):
        done[row["what"]].append(row["id"])
    return Provisioned(**done)


async def count_anew(db: Executor) -> None:
    """Let Postgres know at once how many endpoints there are: by itself it looks within a minute.

    Until then it plans as if there were hardly any. Raises the driver's errors.
    """
    await db.execute(_COUNT_ANEW)


async def _not_as_expected(db: Executor, endpoint_id: str) -> Exception:
    """Why nothing was changed: it is gone, or somebody else changed it first."""
    if await db.fetchrow(_GET, endpoint_id) is None:
        return _not_found(endpoint_id)
    return LostUpdateError(f"{endpoint_id} was changed by somebody else meanwhile; read it again, then change it")


def _not_found(endpoint_id: str) -> NotFoundError:
    return NotFoundError(f"there is no service endpoint with the id {endpoint_id}")

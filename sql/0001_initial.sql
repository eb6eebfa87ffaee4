-- The first schema. Times are timestamptz; ids that people and programs see are text or uuid.

create type service_status_type as enum ('UP', 'DOWN', 'DEGRADED', 'UNKNOWN');
create type severity_type as enum ('CRITICAL', 'MAJOR', 'MINOR', 'WARNING');

-- What is watched.

create table service_endpoint (
    -- Byte order, so that pages by id need no sort and do not depend on the server's locale.
    id text collate "C" not null unique check (id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
    key int generated always as identity primary key,
    name text not null,
    url text not null,
    protocol text not null,
    check_interval int not null default 60 check (check_interval >= 1),
    timeout double precision not null default 5 check (timeout > 0),
    retries int not null default 3 check (retries >= 0),
    expected_status_code int,
    expected_response_pattern text,
    is_active boolean not null default true,
    retry_interval int check (retry_interval >= 1),
    detection_threshold int check (detection_threshold >= 1),
    recovery_threshold int check (recovery_threshold >= 1),
    severity severity_type not null default 'MAJOR',
    degraded_threshold_ms double precision,
    depends_on jsonb not null default '[]' check (jsonb_typeof(depends_on) = 'array'),
    tags text[] not null default '{}',
    site text,
    options jsonb not null default '{}' check (jsonb_typeof(options) = 'object'),
    -- Who owns the definition: 'api', or 'config:INSTANCE' for those of a configuration file.
    source text not null default 'api',
    revision bigint not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    archived_at timestamptz
);

create index service_endpoint_revision on service_endpoint (revision);

-- The revision of the last change to the endpoints. Whoever changes one holds this row until the end of the
-- transaction, so revisions become visible in their order and "everything since mine" misses nothing.
-- A reader whose revision is below complete_from must read everything: rows it knows are gone.
create table change_revision (
    only_row boolean primary key default true check (only_row),
    revision bigint not null default 0,
    complete_from bigint not null default 0
);
insert into change_revision default values;

create function bump_change_revision() returns trigger language plpgsql as $$
begin
    update change_revision set revision = revision + 1;
    return null;
end $$;

create function read_all_endpoints_again() returns trigger language plpgsql as $$
begin
    update change_revision set complete_from = revision;
    return null;
end $$;

create function stamp_service_endpoint() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        new.revision := old.revision;
        new.created_at := old.created_at;
        new.updated_at := old.updated_at;
        if new is not distinct from old then
            return new;
        end if;
    else
        new.created_at := now();
    end if;
    new.updated_at := now();
    new.revision := (select revision from change_revision);
    return new;
end $$;

create trigger service_endpoint_1_bump before insert or update or delete or truncate on service_endpoint
    for each statement execute function bump_change_revision();
create trigger service_endpoint_2_stamp before insert or update on service_endpoint
    for each row execute function stamp_service_endpoint();
create trigger service_endpoint_3_gone after delete or truncate on service_endpoint
    for each statement execute function read_all_endpoints_again();

-- Who looked: one number for each daemon that ever wrote here.
create table observer (
    number smallint primary key,
    name text not null unique
);
insert into observer values (1, 'main');

-- Why a check failed, in the order of the program's closed list.
create table failure_kind (
    number smallint primary key,
    name text not null unique
);
insert into failure_kind values
    (1, 'timeout'), (2, 'refused'), (3, 'reset'), (4, 'unreachable'), (5, 'dns'), (6, 'tls'), (7, 'protocol'),
    (8, 'status'), (9, 'pattern'), (10, 'content'), (11, 'loss'), (12, 'local'), (13, 'isolated'), (14, 'loop_lag'),
    (15, 'probe_error');

-- What checks found: very many rows, so no stored id, no foreign key, and columns in the order that wastes no padding.

create sequence service_status_seq;

create table service_status_row (
    timestamp timestamptz not null,
    seq bigint not null default nextval('service_status_seq'),
    endpoint_key int not null,
    status service_status_type not null,
    -- Milliseconds.
    response_time real,
    dns_ms real,
    connect_ms real,
    tls_ms real,
    first_byte_ms real,
    transfer_ms real,
    observer smallint not null,
    attempts smallint not null,
    -- 0: the schedule asked, 1: a person.
    source smallint not null default 0,
    failure_kind smallint,
    error_message text,
    details jsonb,
    constraint service_status_row_once unique (endpoint_key, observer, timestamp)
) partition by range (timestamp);

alter sequence service_status_seq owned by service_status_row.seq;

-- Makes sure that the rows of a UTC day have a place. Neither readers nor writers wait for it: a table is attached
-- under a lock that only other changes of the partitions respect.
create function ensure_status_partition(day date) returns void language plpgsql as $$
declare
    partition text := 'service_status_row_' || to_char(day, 'YYYYMMDD');
begin
    if exists (select from pg_inherits where inhparent = 'service_status_row'::regclass
               and inhrelid = to_regclass(partition)) then
        return;
    end if;
    lock table service_status_row in share update exclusive mode;
    if exists (select from pg_inherits where inhparent = 'service_status_row'::regclass
               and inhrelid = to_regclass(partition)) then
        return;
    end if;
    if to_regclass(partition) is null then
        execute format('create table %I (like service_status_row including defaults including indexes)', partition);
    end if;
    execute format('alter table service_status_row attach partition %I for values from (%L) to (%L)',
                   partition, day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00');
end $$;

-- Elasticsearch has every row up to this one.
create table elasticsearch_cursor (
    only_row boolean primary key default true check (only_row),
    seq bigint not null default 0
);
insert into elasticsearch_cursor default values;

create view service_status as
select
    format('%s-%s-%s', s.endpoint_key, s.observer, (extract(epoch from s.timestamp) * 1000000)::bigint) as id,
    e.id as endpoint_id,
    s.status,
    s.response_time,
    s.timestamp,
    s.error_message,
    s.seq <= (select c.seq from elasticsearch_cursor c) as elasticsearch_synced,
    k.name as failure_kind,
    s.attempts,
    case s.source when 0 then 'schedule' else 'manual' end as source,
    o.name as observer,
    s.dns_ms,
    s.connect_ms,
    s.tls_ms,
    s.first_byte_ms,
    s.transfer_ms,
    s.details
from service_status_row s
join service_endpoint e on e.key = s.endpoint_key
left join observer o on o.number = s.observer
left join failure_kind k on k.number = s.failure_kind;

-- What that means.

create table service_outage (
    id uuid primary key,
    endpoint_id text collate "C" not null references service_endpoint (id),
    severity severity_type not null,
    description text not null default '',
    start_time timestamptz not null,
    declared_at timestamptz not null,
    last_good_at timestamptz,
    resolved boolean not null default false,
    resolved_at timestamptz,
    resolution_notes text,
    notification_channels jsonb not null default '[]' check (jsonb_typeof(notification_channels) = 'array'),
    evidence jsonb not null default '{}' check (jsonb_typeof(evidence) = 'object'),
    revision bigint not null default 1,
    synced_revision bigint not null default 0,
    elasticsearch_synced boolean generated always as (synced_revision >= revision) stored,
    constraint service_outage_resolved_at check (resolved = (resolved_at is not null)),
    constraint service_outage_ends_after_start check (resolved_at >= start_time)
);

create unique index service_outage_one_open on service_outage (endpoint_id) where not resolved;
create index service_outage_newest on service_outage (start_time desc, id desc);
create index service_outage_of_endpoint on service_outage (endpoint_id, start_time desc, id desc);

create table state_change (
    id uuid primary key,
    -- Tells changes of one moment apart: they are numbered as they were recorded.
    seq bigint generated always as identity,
    endpoint_id text collate "C" not null,
    old_state text not null check (old_state in ('up', 'degraded', 'suspected', 'down', 'unknown')),
    new_state text not null check (new_state in ('up', 'degraded', 'suspected', 'down', 'unknown')),
    reason text not null,
    evidence jsonb not null default '{}' check (jsonb_typeof(evidence) = 'object'),
    at timestamptz not null,
    outage_id uuid,
    -- Null: people are still owed the news.
    processed_at timestamptz
);

create index state_change_newest on state_change (endpoint_id, at desc, seq desc);
create index state_change_owed on state_change (seq) where processed_at is null;

-- Ends an outage that no further check will end, and records that it did; an outage that is over stays as it is.
create function close_outage(outage uuid, moment timestamptz, notes text, why text)
returns void language sql as $$
    with closed as (
        update service_outage
        set resolved = true, resolved_at = greatest(moment, start_time), resolution_notes = notes,
            revision = revision + 1
        where id = outage and not resolved
        returning id, endpoint_id, resolved_at
    )
    insert into state_change (id, endpoint_id, old_state, new_state, reason, at, outage_id)
    select gen_random_uuid(), endpoint_id, 'down', 'unknown', why, resolved_at, id from closed
$$;

-- Nobody asks the endpoint that question any more, so its open outage is over, whoever made the change.
create function close_outage_of_changed_endpoint() returns trigger language plpgsql as $$
declare
    notes text;
    why text;
begin
    if new.archived_at is not null and old.archived_at is null then
        notes := 'Closed because the endpoint was deleted';
        why := 'endpoint deleted';
    elsif old.is_active and not new.is_active then
        notes := 'Closed because the endpoint was deactivated';
        why := 'endpoint deactivated';
    elsif new.url <> old.url then
        notes := format('Closed because its url changed from %s to %s', old.url, new.url);
        why := 'url changed';
    elsif new.protocol <> old.protocol then
        notes := format('Closed because its protocol changed from %s to %s', old.protocol, new.protocol);
        why := 'protocol changed';
    else
        return null;
    end if;
    perform close_outage(id, now(), notes, why) from service_outage where endpoint_id = new.id and not resolved;
    return null;
end $$;

create trigger service_endpoint_4_close_outage after update on service_endpoint for each row
    when (new.archived_at is distinct from old.archived_at or new.is_active <> old.is_active
          or new.url <> old.url or new.protocol <> old.protocol)
    execute function close_outage_of_changed_endpoint();

-- An outage may be declared while its endpoint is being deleted or deactivated. Whoever commits last calls this.
create function close_outages_of_unwatched() returns void language sql as $$
    select close_outage(o.id, now(),
        'Closed because the endpoint was ' || case when e.archived_at is null then 'deactivated' else 'deleted' end,
        case when e.archived_at is null then 'endpoint deactivated' else 'endpoint deleted' end)
    from service_outage o
    join service_endpoint e on e.id = o.endpoint_id
    where not o.resolved and (e.archived_at is not null or not e.is_active)
$$;

-- What is planned.

create table maintenance_window (
    id uuid primary key,
    description text not null default '',
    start_time timestamptz not null,
    end_time timestamptz not null,
    mode text not null default 'mute' check (mode in ('mute', 'pause')),
    created_by text not null default '',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint maintenance_window_ends_after_start check (end_time > start_time)
);

create index maintenance_window_newest on maintenance_window (start_time desc, id desc);
create index maintenance_window_end on maintenance_window (end_time);

create table maintenance_window_endpoint (
    window_id uuid not null references maintenance_window (id) on delete cascade,
    endpoint_id text collate "C" not null references service_endpoint (id) on delete cascade,
    -- Its place in the list that was given.
    position int not null default 0,
    primary key (window_id, endpoint_id)
);

create index maintenance_window_endpoint_endpoint on maintenance_window_endpoint (endpoint_id);

create table retention_setting (
    only_row boolean primary key default true check (only_row),
    retention_days int not null,
    effective_days int not null,
    changed_at timestamptz not null default now()
);

-- A running daemon learns of every change at once. One notice a statement, without payload: it reads for itself.

create function tell_daemons() returns trigger language plpgsql as $$
begin
    perform pg_notify('servmon_changes', '');
    return null;
end $$;

create trigger service_endpoint_5_tell after insert or update or delete or truncate on service_endpoint
    for each statement execute function tell_daemons();
create trigger service_outage_tell after update on service_outage
    for each statement execute function tell_daemons();
create trigger maintenance_window_tell after insert or update or delete or truncate on maintenance_window
    for each statement execute function tell_daemons();
create trigger maintenance_window_endpoint_tell after insert or update or delete or truncate
    on maintenance_window_endpoint for each statement execute function tell_daemons();

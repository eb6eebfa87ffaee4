-- What Elasticsearch still has to hear of.

-- Rows lie in about the order of their numbers, so a few bytes for each hundred pages find those after the cursor.
-- A btree would cost a sixth of the table.
create index service_status_row_seq on service_status_row using brin (seq) with (autosummarize = on);

create index service_outage_unsynced on service_outage (start_time, id) where synced_revision < revision;

-- What Elasticsearch refuses for what it is, and why; it is tried again from time to time, and holds up nothing else.
create table elasticsearch_dead_letter (
    kind text not null check (kind in ('status', 'outage', 'maintenance')),
    document_id text not null,
    -- Of a status its seq, of an outage its revision, of a window its last change: a later version is tried anew.
    version bigint not null,
    index_name text not null,
    document jsonb not null,
    reason text not null,
    attempts int not null default 1,
    first_at timestamptz not null default now(),
    last_at timestamptz not null default now(),
    primary key (kind, document_id)
);

-- The windows that Elasticsearch holds, each as of its last change in microseconds: what was deleted here is there
-- until somebody says so.
create table elasticsearch_window (
    window_id uuid primary key,
    version bigint not null
);

create or replace view service_status as
select
    format('%s-%s-%s', s.endpoint_key, s.observer, (extract(epoch from s.timestamp) * 1000000)::bigint) as id,
    e.id as endpoint_id,
    s.status,
    s.response_time,
    s.timestamp,
    s.error_message,
    s.seq <= (select c.seq from elasticsearch_cursor c)
        and s.seq <> all (array(select d.version from elasticsearch_dead_letter d where d.kind = 'status'))
        as elasticsearch_synced,
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

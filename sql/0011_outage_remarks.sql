-- What people say of an outage: notes, and that it does not count against availability.

create table outage_remark (
    id uuid primary key,
    outage_id uuid not null references service_outage (id) on delete cascade,
    kind text not null check (kind in ('note', 'excluded', 'included')),
    text text not null default '',
    said_by text not null,
    said_at timestamptz not null
);

create index outage_remark_of_outage on outage_remark (outage_id, said_at, id);

-- Null: it counts.
alter table service_outage
    add excluded_reason text,
    add false_alarm boolean not null default false;

-- Who was told of what, and who was not and why.

-- One rule firing: an outage, or several that are told together, or an event of servmon itself.
create table alert (
    id uuid primary key,
    rule text not null,
    title text not null,
    severity severity_type not null,
    opened_at timestamptz not null,
    -- How often it was said again that it is still so, and when last anything was said.
    reminders int not null default 0,
    told_at timestamptz not null,
    channels text[] not null,
    closed_at timestamptz
);

create index alert_newest on alert (opened_at desc, id desc);
create index alert_open on alert (opened_at) where closed_at is null;

create table alert_outage (
    alert_id uuid not null references alert (id) on delete cascade,
    outage_id uuid not null,
    endpoint_id text collate "C" not null,
    name text not null,
    start_time timestamptz not null,
    -- Its end, as it was told.
    resolved_at timestamptz,
    primary key (alert_id, outage_id)
);

create index alert_outage_outage on alert_outage (outage_id);

-- What became of each piece of news: sent in an alert, or not and why.
create table alert_decision (
    news_id uuid primary key,
    outage_id uuid,
    endpoint_id text collate "C",
    kind text not null,
    stage text not null,
    reason text not null,
    alert_id uuid,
    at timestamptz not null
);

create index alert_decision_outage on alert_decision (outage_id, at) where outage_id is not null;
create index alert_decision_newest on alert_decision (at desc);

-- The outbox: messages owed, each through one channel. Stored before it is sent, marked afterwards.
create table notification (
    id uuid primary key,
    seq bigint generated always as identity,
    alert_id uuid not null,
    channel text not null,
    kind text not null,
    severity severity_type not null,
    subject text not null,
    body text not null,
    content jsonb not null default '{}' check (jsonb_typeof(content) = 'object'),
    created_at timestamptz not null,
    attempts int not null default 0,
    last_error text,
    sent_at timestamptz,
    -- It was tried for as long as makes sense, or can never arrive.
    given_up_at timestamptz
);

create index notification_owed on notification (seq) where sent_at is null and given_up_at is null;
create index notification_of_alert on notification (alert_id, seq);

create table silence (
    id uuid primary key,
    -- By id, tag or site, each a list; all that are given must match.
    matchers jsonb not null check (jsonb_typeof(matchers) = 'object'),
    reason text not null check (reason <> ''),
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    created_by text not null default '',
    constraint silence_ends_after_start check (ends_at > starts_at)
);

create index silence_end on silence (ends_at);

-- Somebody sees to an outage: nobody is reminded of it. It ends with the outage, or when that becomes worse.
create table acknowledgement (
    outage_id uuid primary key references service_outage (id) on delete cascade,
    acknowledged_by text not null,
    acknowledged_at timestamptz not null,
    note text not null default ''
);

-- What single results amount to: of each endpoint its hours, kept for long, and its UTC days, kept for ever.

-- Percentiles cannot be put together from others, so days are made of results, not of hours.
create table service_status_hourly (
    start timestamptz not null,
    endpoint_key int not null,
    -- How many scheduled checks ended so.
    up int not null,
    degraded int not null,
    down int not null,
    unknown int not null,
    -- Milliseconds, of the checks that were answered; null where none was.
    response_time_min real,
    response_time_avg real,
    response_time_p50 real,
    response_time_p95 real,
    response_time_p99 real,
    response_time_max real,
    -- Of the packets of its checks; null where they send none.
    loss_percent real,
    primary key (endpoint_key, start)
) partition by range (start);

create table service_status_daily (like service_status_hourly including all);

-- Makes sure that the hours of a month, given by any of its days, have a place.
create function ensure_hourly_partition(day date) returns void language plpgsql as $$
declare
    month date := date_trunc('month', day);
    partition text := 'service_status_hourly_' || to_char(month, 'YYYYMM');
begin
    if to_regclass(partition) is not null then
        return;
    end if;
    lock table service_status_hourly in share update exclusive mode;
    if to_regclass(partition) is not null then
        return;
    end if;
    execute format('create table %I (like service_status_hourly including defaults including indexes)', partition);
    execute format('alter table service_status_hourly attach partition %I for values from (%L) to (%L)', partition,
                   month || ' 00:00:00+00', (month + interval '1 month')::date || ' 00:00:00+00');
end $$;

-- Which hours and days got results that are not summed up yet. Whoever stores results adds their hours in the same
-- transaction: who sees an entry sees the results it speaks of. Only ever added and taken away, so nobody waits.
create table rollup_due (
    id bigint generated always as identity primary key,
    period text not null check (period in ('hour', 'day')),
    start timestamptz not null,
    marked_at timestamptz not null default clock_timestamp()
);

insert into rollup_due (period, start)
select 'hour', (to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD') + make_interval(hours => hour)) at time zone 'UTC'
from pg_inherits, generate_series(0, 23) hour
where inhparent = 'service_status_row'::regclass and inhrelid::regclass::text ~ '^service_status_row_[0-9]{8}$';

-- How long each kind of record is kept, no longer results alone.
alter table retention_setting
    drop column only_row,
    add column what text not null default 'results' primary key,
    -- What is older was deleted. What of it arrives late is no longer all there was, and sums up to nothing.
    add column dropped_before date;
alter table retention_setting alter column what drop default;
alter table retention_setting rename column retention_days to wanted_days;

-- What grows old is found without looking at what is not.
create index state_change_at on state_change (at);
create index state_change_verified on state_change (at) where evidence ? 'verification';
create index service_outage_verified on service_outage (resolved_at) where evidence ? 'verification';
create index alert_closed on alert (closed_at) where closed_at is not null;
create index notification_created on notification (created_at);

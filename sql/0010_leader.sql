-- Of the daemons of one instance, the one that checks. Who leads holds an advisory lock as well; the row says who it
-- is, and that it lives: a lock outlives a machine that lost its power until the network notices.
create table leader (
    instance text primary key,
    -- The data folder's own id: the same daemon after a restart.
    holder text not null,
    name text not null,
    backend_pid int not null,
    since timestamptz not null default now(),
    seen_at timestamptz not null default now()
);

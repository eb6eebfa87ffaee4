-- Who may use the API, and who changed what.

create table access_token (
    id uuid primary key,
    name text not null,
    -- The part of a token that may be shown.
    prefix text not null,
    -- SHA-256; the token itself is nowhere.
    digest bytea not null unique,
    role text not null check (role in ('read', 'operate', 'admin')),
    created_at timestamptz not null,
    created_by text not null,
    expires_at timestamptz,
    revoked_at timestamptz
);

create unique index access_token_valid_name on access_token (name) where revoked_at is null;

create trigger access_token_tell after insert or update or delete or truncate on access_token
    for each statement execute function tell_daemons();

-- Every change that somebody made over the API.
create table audit (
    number bigint generated always as identity primary key,
    at timestamptz not null,
    -- The token's name and the part of it that may be shown.
    who text not null,
    prefix text not null default '',
    address text not null default '',
    action text not null,
    target text not null,
    before jsonb,
    after jsonb,
    request_id text not null default ''
);

create index audit_target on audit (target, number);
create index audit_at on audit (at);

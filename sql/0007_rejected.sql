-- What could never be stored as what it is, and why: for a person to look at. The body is what servmon found, as text.

create table rejected (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    reason text not null,
    body text not null
);

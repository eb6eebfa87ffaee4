-- Which kind of rule an alert came of, why it fired, and what was said of it that is said once.

alter table alert
    add column kind text not null default 'service_down',
    add column reason text not null default '',
    add column said text[] not null default '{}';

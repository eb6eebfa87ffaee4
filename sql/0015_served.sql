-- Of a message with several receivers: those who need no further try. They have it, or never will.

alter table notification add column served text[] not null default '{}';

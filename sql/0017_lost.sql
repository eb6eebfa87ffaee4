-- Of a message that is still owed to some: why others of its receivers never get it. In the end it is not one that was sent.

alter table notification add column lost text;

-- Who saw to an outage, and until when, stays in its timeline when the acknowledgement is over.

alter table outage_remark
    drop constraint outage_remark_kind_check,
    add check (kind in ('note', 'excluded', 'included', 'acknowledged', 'unacknowledged'));

insert into outage_remark (id, outage_id, kind, text, said_by, said_at)
select gen_random_uuid(), outage_id, 'acknowledged', note, acknowledged_by, acknowledged_at from acknowledgement;

//! The view `all_runs`: every run with its state, whether it has ended or not. Written by hand, as the catalog does not tell
//! which columns of a view can be null.

use super::schema::{child_runs, project_members, projects, schedule_fires, schedules};

diesel::table! {
    all_runs (id) {
        id -> Uuid,
        project_id -> Uuid,
        graph_digest -> Bytea,
        kind -> Text,
        trigger -> Json,
        pipeline_id -> Nullable<Uuid>,
        pipeline_version -> Nullable<Int4>,
        schedule_id -> Nullable<Uuid>,
        parent_run_id -> Nullable<Uuid>,
        rerun_of -> Nullable<Uuid>,
        state -> Text,
        waiting_for -> Nullable<Text>,
        input -> Json,
        output -> Nullable<Json>,
        error -> Nullable<Json>,
        priority -> Int4,
        deadline_at -> Nullable<Timestamptz>,
        owner -> Nullable<Uuid>,
        epoch -> Int8,
        recoveries -> Int4,
        cancel_requested_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        ended_at -> Nullable<Timestamptz>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(all_runs, child_runs);
diesel::allow_tables_to_appear_in_same_query!(all_runs, project_members);
diesel::allow_tables_to_appear_in_same_query!(all_runs, projects);
diesel::allow_tables_to_appear_in_same_query!(all_runs, schedule_fires);
diesel::allow_tables_to_appear_in_same_query!(all_runs, schedules);

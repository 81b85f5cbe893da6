//! Would the stream go on after a failover? Whether the standbys have the slot, before somebody needs it.

use tokio_postgres::Client;

use super::check::Finding;
use super::slot::find_slot;
use super::standby::is_standby;
use crate::error::EtlResult;
use crate::postgres::{ConnectOptions, Host, Session, TargetSession, query_error};

/// What a standby needs for copies of slots.
const SYNC: &str = "On the standby: sync_replication_slots = on, hot_standby_feedback = on, primary_slot_name, and a dbname \
                    in primary_conninfo; it takes a copy once it has caught up with the slot";

/// Looks at the slot here and at its copies on those of the given hosts that are standbys.
pub(super) async fn check_failover(options: &ConnectOptions, client: &Client, slot: &str) -> EtlResult<Vec<Finding>> {
    let mut findings = Vec::new();
    match find_slot(client, slot).await? {
        Some(found) if !found.has_failover => {
            findings.push(Finding::warning(
                format!("the slot {slot} does not follow a failover yet"),
                "The next start changes it",
            ));
        }
        Some(_) => findings.extend(check_standbys(options, slot).await?),
        None => {}
    }
    let query = "SELECT coalesce(current_setting('synchronized_standby_slots', true), '')";
    let row = client.query_one(query, &[]).await.map_err(|e| query_error("ask which standbys are waited for", e))?;
    if row.get::<_, String>(0).is_empty() {
        findings.push(Finding::warning(
            "the primary sends changes that no standby has yet: one that is promoted may lack what was read",
            "ALTER SYSTEM SET synchronized_standby_slots = '<the physical slots of the standbys>'",
        ));
    }
    Ok(findings)
}

async fn check_standbys(options: &ConnectOptions, slot: &str) -> EtlResult<Vec<Finding>> {
    let (mut findings, mut standbys) = (Vec::new(), 0);
    for host in options.hosts() {
        let alone = ConnectOptions {
            host: host.name.clone(),
            port: host.port,
            other_hosts: Vec::new(),
            target_session_attrs: Some(TargetSession::Any),
            ..options.clone()
        };
        match Session::connect(&alone).await {
            Ok(session) if is_standby(session.client()).await? => {
                standbys += 1;
                findings.extend(check_standby(session.client(), &host, slot).await?);
            }
            Ok(_) => {}
            Err(error) => {
                findings.push(Finding::warning(format!("{host} was not asked whether it has the slot: {error}"), ""));
            }
        }
    }
    if standbys == 0 {
        let hint = "Name them too, as `host: primary,standby`: after a failover the stream goes on there";
        findings.push(Finding::warning("no standby is known that could have the slot", hint));
    }
    Ok(findings)
}

async fn check_standby(client: &Client, host: &Host, slot: &str) -> EtlResult<Option<Finding>> {
    Ok(match find_slot(client, slot).await? {
        None => Some(Finding::error(format!("the standby {host} does not have the slot {slot}"), SYNC)),
        Some(found) if found.lost.is_some() => {
            let why = found.lost.unwrap_or_default();
            Some(Finding::error(format!("the standby {host} has given up its copy of the slot {slot}: {why}"), SYNC))
        }
        Some(found) if found.is_temporary => {
            Some(Finding::warning(format!("the standby {host} is only about to have the slot {slot}"), SYNC))
        }
        Some(found) if !found.is_synced => Some(Finding::error(
            format!("the slot {slot} of the standby {host} is no copy of the primary's"),
            "Drop it there: the copy has no place beside it",
        )),
        Some(_) => None,
    })
}

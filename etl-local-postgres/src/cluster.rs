//! How does a data directory come to be? One `initdb` per version and user, kept as a template and copied.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use crate::{Error, account::Account, binaries::Binaries, places};

/// What a server for replication needs; settings of the caller come after these and win.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("wal_level", "logical"),
    ("max_replication_slots", "24"),
    ("max_wal_senders", "24"),
    ("max_prepared_transactions", "20"),
    ("max_connections", "120"),
    ("shared_buffers", "64MB"),
    ("max_wal_size", "2GB"),
    ("checkpoint_timeout", "15min"),
    ("log_min_messages", "warning"),
];

/// Makes `data` below the server's root: a copy of the template, or a cluster with a system identifier of its own.
pub(crate) async fn make(root: &Path, binaries: &Binaries, account: Account, own: bool) -> Result<PathBuf, Error> {
    let data = root.join("data");
    if own {
        initdb(&data, binaries, account).await?;
        return Ok(data);
    }
    let template = template(binaries, account).await?;
    let output = account
        .command("cp")
        .arg("-a")
        .args([&template, &data])
        .output()
        .await
        .map_err(|e| Error::io("copying the template cluster", e))?;
    if output.status.success() {
        return Ok(data);
    }
    Err(Error::new("copying the template cluster", String::from_utf8_lossy(&output.stderr)))
}

/// Appends settings to `postgresql.conf`; the last one of a name wins.
pub(crate) fn configure<'a>(
    data: &Path,
    account: Account,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), Error> {
    let path = data.join("postgresql.conf");
    let lines: String =
        settings.into_iter().map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect();
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(lines.as_bytes()))
        .map_err(|e| Error::io("writing postgresql.conf", e))?;
    account.own(&path)
}

/// The settings that every server starts with.
pub(crate) fn settings<'a>() -> impl Iterator<Item = (&'a str, &'a str)> {
    SETTINGS.iter().copied()
}

/// Who may connect: the socket without a password, TCP by `method`.
pub(crate) fn authenticate(data: &Path, account: Account, method: &str) -> Result<(), Error> {
    let path = data.join("pg_hba.conf");
    let rules = format!(
        "local all all trust\nlocal replication all trust\n\
         host all all 127.0.0.1/32 {method}\nhost replication all 127.0.0.1/32 {method}\n"
    );
    fs::write(&path, rules).map_err(|e| Error::io("writing pg_hba.conf", e))?;
    account.own(&path)
}

async fn template(binaries: &Binaries, account: Account) -> Result<PathBuf, Error> {
    let home = places::temp_dir(account).join(format!("etl-pg-templates-{}", account.mark()));
    let template = home.join(&binaries.version);
    if account.owns_alone(&home) && template.join("PG_VERSION").is_file() {
        return Ok(template);
    }
    let made = account.command("mkdir").args(["-p", "-m", "0700"]).arg(&home).output().await;
    made.map_err(|e| Error::io("making the template's directory", e))?;
    if !account.owns_alone(&home) {
        return Err(Error::new("making the template cluster", format!("{} belongs to another user", home.display()))
            .hint("remove that directory, or point TMPDIR to another place"));
    }
    let fresh = home.join(format!("fresh-{}-{:08x}", std::process::id(), rand::random::<u32>()));
    initdb(&fresh, binaries, account).await?;
    if fs::rename(&fresh, &template).is_err() {
        // Another process was faster; its template is as good.
        fs::remove_dir_all(&fresh).map_err(|e| Error::io("removing a second template cluster", e))?;
    }
    Ok(template)
}

async fn initdb(data: &Path, binaries: &Binaries, account: Account) -> Result<(), Error> {
    let output = account
        .command(binaries.dir.join("initdb"))
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
        .arg(data)
        .output()
        .await
        .map_err(|e| Error::io("running initdb", e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new("running initdb", String::from_utf8_lossy(&output.stderr)))
}

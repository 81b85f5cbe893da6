//! How does a server get a certificate? A fresh authority and a server key for localhost, made by `openssl`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, account::Account};

const EXTENSIONS: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";

/// Writes `ca.crt`, `server.crt` and `server.key` into the directory; gives the path of `ca.crt`.
pub(crate) async fn make(dir: &Path, account: Account) -> Result<PathBuf, Error> {
    let extensions = dir.join("server.ext");
    fs::write(&extensions, EXTENSIONS).map_err(|e| Error::io("writing the certificate's extensions", e))?;
    account.own(&extensions)?;
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["req", "-x509", "-sha256", "-days", "30", "-subj", "/CN=etl test authority"];
    openssl(dir, account, &[&authority[..], &key, &["-keyout", "ca.key", "-out", "ca.crt"]].concat()).await?;
    let request = ["req", "-sha256", "-subj", "/CN=localhost"];
    openssl(dir, account, &[&request[..], &key, &["-keyout", "server.key", "-out", "server.csr"]].concat()).await?;
    let sign = ["x509", "-req", "-sha256", "-days", "30", "-in", "server.csr", "-extfile", "server.ext"];
    let by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.crt"];
    openssl(dir, account, &[&sign[..], &by].concat()).await?;
    openssl(dir, account, &["verify", "-CAfile", "ca.crt", "server.crt"]).await?;
    Ok(dir.join("ca.crt"))
}

async fn openssl(dir: &Path, account: Account, arguments: &[&str]) -> Result<(), Error> {
    let hint = "certificates are made by the program `openssl`: install it, or start the server without TLS";
    let output = account
        .command("openssl")
        .args(arguments)
        .current_dir(dir)
        .output()
        .await
        .map_err(|e| Error::io("running openssl", e).hint(hint))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new("making a certificate", String::from_utf8_lossy(&output.stderr)).hint(hint))
}

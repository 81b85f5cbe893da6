//! How is a server trusted that is spoken to over HTTPS? By its certificate and name, always.

use std::path::Path;
use std::sync::Arc;

use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The settings of a connection; trusts the authorities of the file, else those of the system.
///
/// # Errors
/// `Tls` when there are none, or when the file cannot be read.
pub(super) fn client_config(ca: Option<&Path>) -> EtlResult<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_etl(ErrorKind::Tls, "set up TLS")?;
    Ok(builder.with_root_certificates(roots(ca)?).with_no_client_auth())
}

fn roots(ca: Option<&Path>) -> EtlResult<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let unusable = |cause: Box<dyn std::error::Error + Send + Sync>| {
        EtlError::new(ErrorKind::Tls, "could not read the authority's certificate")
            .with("ca", path.display())
            .because(cause)
            .hint("It is a file in PEM form that this user may read")
    };
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    for certificate in found.map_err(|error| unusable(error.into()))? {
        roots.add(certificate).map_err(|error| unusable(error.into()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".into()));
    }
    Ok(roots)
}

//! How is a connection encrypted, and how much is the other side trusted?

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use crate::postgres::options::{Host, TlsMode, TlsOptions};

/// Encrypts a connection whose server has agreed to it.
pub(super) async fn encrypt(
    stream: TcpStream,
    options: &TlsOptions,
    mode: TlsMode,
    host: &Host,
) -> EtlResult<TlsStream<TcpStream>> {
    let config = client_config(options, mode)?;
    let name = ServerName::try_from(host.name.clone()).or_etl(ErrorKind::Tls, "use the host's name for TLS")?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| refused(error).with("server", host))
}

/// An error of a login, where its cause is what the server thinks of our certificate: in TLS 1.3 it says so with the
/// first read after the handshake.
pub(crate) fn explained(error: EtlError) -> EtlError {
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        if cause.downcast_ref::<io::Error>().and_then(of_rustls).is_some_and(is_alert) {
            let refused = EtlError::new(ErrorKind::Tls, "the server refuses the encrypted connection");
            return refused.because(error).hint(REFUSED);
        }
        source = cause.source();
    }
    error
}

fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn is_alert(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::AlertReceived(_))
}

const REFUSED: &str = "The server refuses our certificate: look at tls.certificate and tls.key";

/// The error of a handshake.
fn refused(error: io::Error) -> EtlError {
    let Some(cause) = of_rustls(&error) else {
        return EtlError::new(ErrorKind::SourceUnavailable, "the connection was lost").because(error);
    };
    let hint = match cause {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "The server's certificate has expired: renew it"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "The server's certificate is not valid yet: look at the clocks"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "Connect by a name in the server's certificate, or set tls.mode to verify-ca"
            }
            _ => "Name the authority that signed the server's certificate in tls.ca",
        },
        rustls::Error::AlertReceived(_) => REFUSED,
        _ => "Look at the versions of TLS that the server allows (ssl_min_protocol_version)",
    };
    EtlError::new(ErrorKind::Tls, "could not encrypt the connection").because(error).hint(hint)
}

fn client_config(options: &TlsOptions, mode: TlsMode) -> EtlResult<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .or_etl(ErrorKind::Tls, "set up TLS")?;
    let builder = match mode {
        TlsMode::VerifyFull => builder.with_root_certificates(roots(options.ca_file())?),
        TlsMode::VerifyCa => {
            let roots = Arc::new(roots(options.ca_file())?);
            let inner = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            let inner = inner.or_etl(ErrorKind::Tls, "set up TLS")?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(inner)))
        }
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
    };
    match (&options.certificate, &options.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("tls.certificate", certificate)?;
            let config = builder.with_client_auth_cert(chain, private_key(key)?);
            config.map_err(|error| {
                unusable("tls.certificate", certificate, error).hint("tls.key must be the key of tls.certificate")
            })
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(EtlError::new(ErrorKind::Config, "tls.certificate and tls.key belong together")
            .hint("Give both, or neither")),
    }
}

/// The certificates of a PEM file, at least one.
fn certificates(key: &'static str, path: &Path) -> EtlResult<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| unusable(key, path, error))?;
    if found.is_empty() {
        return Err(unusable(key, path, "it holds no certificate"));
    }
    Ok(found)
}

/// A key that others can read is not one; libpq has the same rule.
fn private_key(path: &Path) -> EtlResult<PrivateKeyDer<'static>> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).map_err(|error| unusable("tls.key", path, error))?;
        // One that root owns may be readable by a group, for services.
        let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
        if metadata.mode() & forbidden != 0 {
            return Err(EtlError::new(ErrorKind::Tls, "the key of our certificate can be read by others")
                .with("tls.key", path.display())
                .hint("chmod 600 it"));
        }
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable("tls.key", path, error))
}

fn unusable(key: &'static str, path: &Path, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EtlError {
    EtlError::new(ErrorKind::Tls, "could not read what TLS needs")
        .with(key, path.display())
        .because(cause)
        .hint("It is a file in PEM form that this user may read")
}

fn roots(ca: Option<&Path>) -> EtlResult<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(EtlError::new(ErrorKind::Tls, "the system has no trusted certificates")
                .hint("Install ca-certificates, or name the certificate authority in tls.ca"));
        }
        return Ok(roots);
    };
    for certificate in certificates("tls.ca", path)? {
        roots.add(certificate).map_err(|error| unusable("tls.ca", path, error))?;
    }
    Ok(roots)
}

/// `require`: whoever it is, but the handshake must be signed by the certificate's key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: signed by an authority that is trusted, whatever its name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is looked at last, when everything else is as it should be.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What binds a login to this connection: `tls-server-end-point` (RFC 5929, section 4), the hash of the server's
/// certificate by the hash function of its signature, where MD5 and SHA-1 become SHA-256.
pub(super) fn server_end_point(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    Some(match signature_hash(certificate)? {
        384 => Sha384::digest(certificate).to_vec(),
        512 => Sha512::digest(certificate).to_vec(),
        _ => Sha256::digest(certificate).to_vec(),
    })
}

/// The OIDs of signature algorithms, in DER, with the bits of their hash.
const SIGNATURES: &[(&[u8], u32)] = &[
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], 256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], 256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], 256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c], 384),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], 512),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], 256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], 256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], 384),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04], 512),
];

/// A certificate is SEQUENCE { tbs SEQUENCE, algorithm SEQUENCE { OID, ... }, signature }.
fn signature_hash(certificate: &[u8]) -> Option<u32> {
    const SEQUENCE: u8 = 0x30;
    const OID: u8 = 0x06;
    let (content, _) = element(certificate, SEQUENCE)?;
    let (_, after) = element(content, SEQUENCE)?;
    let (algorithm, _) = element(after, SEQUENCE)?;
    let (oid, _) = element(algorithm, OID)?;
    SIGNATURES.iter().find(|(known, _)| *known == oid).map(|(_, bits)| *bits)
}

/// The content of the DER element at the beginning, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..0x80 => (usize::from(*short), rest),
        long => {
            let digits = rest.get(..usize::from(long & 0x7f)).filter(|digits| digits.len() <= 4)?;
            let length = digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
            (length, rest.get(digits.len()..)?)
        }
    };
    (*found == tag).then_some(())?;
    Some((rest.get(..length)?, rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_found_behind_short_and_long_lengths() {
        let tbs = [&[0x30, 0x81, 0x80][..], &[0; 0x80]].concat();
        let algorithm = [&[0x30, 0x0a, 0x06, 0x08][..], SIGNATURES[7].0].concat();
        let length = u8::try_from(tbs.len() + algorithm.len()).unwrap();
        let certificate = [&[0x30, 0x81, length][..], &tbs, &algorithm].concat();
        assert_eq!(signature_hash(&certificate), Some(384));
        for cut in 0..certificate.len() {
            assert_eq!(signature_hash(&certificate[..cut]), None, "cut at {cut}");
        }
    }
}

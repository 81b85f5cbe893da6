//! How is a connection encrypted, and how much is the other side trusted?

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use crate::postgres::options::{ConnectOptions, TlsMode};

/// Encrypts a connection whose server has agreed to it.
pub(super) async fn encrypt(stream: TcpStream, options: &ConnectOptions) -> EtlResult<TlsStream<TcpStream>> {
    let config = client_config(options)?;
    let name = ServerName::try_from(options.host.clone()).or_etl(ErrorKind::Tls, "use the host's name for TLS")?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let is_certificate = error.to_string().contains("certificate");
        let kind = if is_certificate { ErrorKind::Tls } else { ErrorKind::SourceUnavailable };
        let error = EtlError::new(kind, "could not encrypt the connection").with("host", &options.host).because(error);
        if is_certificate {
            error.hint("Name the certificate authority in tls.ca, and connect by the name in the server's certificate")
        } else {
            error
        }
    })
}

fn client_config(options: &ConnectOptions) -> EtlResult<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .or_etl(ErrorKind::Tls, "set up TLS")?;
    let config = match options.tls_mode() {
        TlsMode::VerifyFull => builder.with_root_certificates(roots(options.tls.ca.as_deref())?).with_no_client_auth(),
        TlsMode::Disable | TlsMode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
    };
    Ok(config)
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
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        EtlError::new(ErrorKind::Tls, "could not read the trusted certificates")
            .with("tls.ca", path.display())
            .because(error)
            .hint("tls.ca is a file of certificates in PEM form")
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.into()))? {
        let certificate = certificate.map_err(|e| failed(e.into()))?;
        roots.add(certificate).map_err(|e| failed(e.into()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate".into()));
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

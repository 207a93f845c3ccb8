//! TLS to Postgres: checks the server's certificate, and computes the channel binding of a login.
//!
//! The levels are libpq's: `prefer` and `require` encrypt without checking anything, `verify-ca`
//! checks who signed the certificate, `verify-full` also whom it names. One configuration serves
//! both connections. The name is looked for in the certificate's alternative names alone; a
//! certificate that names its host only in the common name does not pass `verify-full`.
//!
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5912;

use super::conninfo::{ClientCertificate, ConnInfo, SslMode, SslRoots};

/// A TLS configuration that can't be created.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file cannot be read.
    #[error("cannot read {key} {}", path.display())]
    File {
        /// The key of the connection string that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls::pki_types::pem::Error,
    },
    /// A file of root certificates without any.
    #[error("{origin} has no certificate")]
    NoRoots {
        /// The file, or the system's store.
        origin: String,
    },
    /// A certificate or key is not usable.
    #[error("cannot use the certificates for TLS")]
    Rustls(#[source] rustls::Error),
    /// A host name that can't be in a certificate.
    #[error("{name:?} is not a host name that a certificate can be checked for")]
    Name {
        /// The name.
        name: String,
    },
}

/// Creates the configuration that `info` requires.
///
/// # Errors
/// When a file can't be read or has the wrong content.
pub(crate) fn client_config(info: &ConnInfo) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?;
    let verifier: Arc<dyn ServerCertVerifier> = match roots(&info.ssl_roots)? {
        None => Arc::new(Unnamed { roots: None, provider }),
        Some(roots) if info.ssl_mode == SslMode::VerifyFull => {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
            // It fails only without roots, which is refused above.
            builder
                .build()
                .map_err(|error| TlsError::Rustls(rustls::Error::General(error.to_string())))?
        }
        Some(roots) => Arc::new(Unnamed { roots: Some(roots), provider }),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &info.client_certificate {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { certificate, key }) => {
            let chain = certificates("sslcert", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
                key: "sslkey",
                path: key.clone(),
                source,
            })?;
            builder.with_client_auth_cert(chain, key).map_err(TlsError::Rustls)?
        }
    };
    // Servers from version 17 on know the protocol by its registered name; older ones ignore it.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Arc::new(config))
}

/// The name to send and to look for in the certificate.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    let wrong = |_| TlsError::Name { name: name.to_owned() };
    ServerName::try_from(name.to_owned()).map_err(wrong)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { key, path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(failed)?;
    certificates.collect::<Result<_, _>>().map_err(failed)
}

fn roots(roots: &SslRoots) -> Result<Option<RootCertStore>, TlsError> {
    let (certificates, origin) = match roots {
        SslRoots::None => return Ok(None),
        SslRoots::File(path) => (certificates("sslrootcert", path)?, path.display().to_string()),
        // A single unreadable file of many is acceptable; having none at all is not.
        SslRoots::System => {
            (rustls_native_certs::load_native_certs().certs, "the system's store".to_owned())
        }
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(TlsError::NoRoots { origin });
    }
    Ok(Some(store))
}

/// Checks who signed the certificate, or nothing at all, but never the host name.
///
/// The handshake's signatures are always checked: the peer holds the certificate's key.
#[derive(Debug)]
struct Unnamed {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unnamed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The `tls-server-end-point` value of a certificate: its hash by its signature's own algorithm,
/// with SHA-256 instead of MD5 and SHA-1. `None` if the algorithm has no single hash (Ed25519,
/// RSASSA-PSS), for which the value is undefined.
///
/// <https://www.rfc-editor.org/rfc/rfc5929#section-4.1>
pub(crate) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    /// Not in the registry's list of names.
    const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");
    const SHA256: [ObjectIdentifier; 5] = [
        rfc5912::MD_5_WITH_RSA_ENCRYPTION,
        rfc5912::SHA_1_WITH_RSA_ENCRYPTION,
        ECDSA_WITH_SHA_1,
        rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
        rfc5912::ECDSA_WITH_SHA_256,
    ];
    const SHA384: [ObjectIdentifier; 2] =
        [rfc5912::SHA_384_WITH_RSA_ENCRYPTION, rfc5912::ECDSA_WITH_SHA_384];
    const SHA512: [ObjectIdentifier; 2] =
        [rfc5912::SHA_512_WITH_RSA_ENCRYPTION, rfc5912::ECDSA_WITH_SHA_512];
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let algorithm = parsed.signature_algorithm().oid;
    if SHA256.contains(&algorithm) {
        Some(Sha256::digest(certificate).to_vec())
    } else if SHA384.contains(&algorithm) {
        Some(Sha384::digest(certificate).to_vec())
    } else if SHA512.contains(&algorithm) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    fn hash_length(algorithm: &'static SignatureAlgorithm) -> Option<usize> {
        let key = KeyPair::generate_for(algorithm).expect("key");
        let params = CertificateParams::new(vec!["host".to_owned()]).expect("name");
        let certificate = params.self_signed(&key).expect("signed");
        server_end_point(certificate.der()).map(|hash| hash.len())
    }

    #[test]
    fn the_end_point_is_hashed_as_the_certificate_was_signed() {
        assert_eq!(hash_length(&rcgen::PKCS_ECDSA_P256_SHA256), Some(32));
        assert_eq!(hash_length(&rcgen::PKCS_ECDSA_P384_SHA384), Some(48));
        assert_eq!(hash_length(&rcgen::PKCS_ED25519), None);
        assert_eq!(server_end_point(b"not a certificate"), None);
    }
}

//! PEM texts: chains of certificates, keys, and whether they belong together.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Certificate, Pem};

/// A certificate chain and its key.
///
/// # Errors
/// A sentence, when one of them is no PEM of its sort, or when the key is another certificate's.
pub(crate) fn pair(name: String, chain: &[u8], key: &[u8]) -> Result<Certificate, String> {
    let certificates = certificates(chain)?;
    let parsed = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_error| "the key is not a private key in PEM".to_owned())?;
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(certificates, parsed, &provider).map_err(|error| {
        match error {
            rustls::Error::InconsistentKeys(_) => {
                "the key does not belong to the certificate".to_owned()
            }
            other => format!("the certificate and the key cannot be used: {other}"),
        }
    })?;
    Ok(Certificate {
        name,
        chain: Pem(chain.to_vec()),
        key: Pem(key.to_vec()),
    })
}

/// Certificates of authorities, at least one; or an error at them.
pub(crate) fn authorities_at(mark: &Mark, pem: &[u8], scope: &mut Scope<'_>) -> Option<Pem> {
    let found = certificates(pem).and_then(|certificates| {
        let mut roots = rustls::RootCertStore::empty();
        certificates
            .into_iter()
            .try_for_each(|certificate| roots.add(certificate))
            .map_err(|error| format!("a certificate in it cannot be used: {error}"))
    });
    if let Err(problem) = found {
        scope.error(mark, problem, "give it certificates in PEM");
        return None;
    }
    Some(Pem(pem.to_vec()))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err("there is no certificate in PEM in it".to_owned()),
    }
}

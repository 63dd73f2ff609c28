//! What becomes of descriptors: the question as the command line and `POST /explain/domain` put it.

use serde::{Deserialize, Serialize};

use crate::engine::domain::{Domain, DomainSaid, Domains, NoDomain, Undecided};
use crate::engine::time::Now;

/// Descriptors that are asked about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainQuestion {
    pub domain: String,
    /// Each as `key=value,key=value`.
    pub descriptors: Vec<String>,
}

/// A question that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum DomainQuestionError {
    #[error("no file has the domain `{0}`: nothing is limited")]
    Unknown(String),
    #[error("{0}")]
    Broken(String),
    #[error("there is nothing to ask about: write a descriptor as `key=value,key=value`")]
    Nothing,
    #[error("`{0}` is not a descriptor; write it as `key=value,key=value`")]
    Descriptor(String),
    #[error(transparent)]
    Undecided(#[from] Undecided),
}

impl DomainQuestion {
    /// Asks it of `domains`. `look`: at the counts, too.
    ///
    /// # Errors
    /// [`DomainQuestionError`]
    pub async fn ask(
        &self,
        domains: &Domains,
        look: bool,
        now: Now,
    ) -> Result<DomainSaid, DomainQuestionError> {
        let (domain, descriptors) = self.read(domains)?;
        Ok(domain.explain(&descriptors, look, now).await?)
    }

    /// Gives the domain and the descriptors to `then`.
    ///
    /// # Errors
    /// [`DomainQuestionError`]
    pub fn with<T>(
        &self,
        domains: &Domains,
        then: impl FnOnce(&Domain, &[Vec<(&str, &str)>]) -> T,
    ) -> Result<T, DomainQuestionError> {
        let (domain, descriptors) = self.read(domains)?;
        Ok(then(domain, &descriptors))
    }

    fn read<'a>(
        &'a self,
        domains: &'a Domains,
    ) -> Result<(&'a Domain, Vec<Descriptor<'a>>), DomainQuestionError> {
        let domain: &Domain = domains.get(&self.domain).map_err(|none| match none {
            NoDomain::Unknown => DomainQuestionError::Unknown(self.domain.clone()),
            NoDomain::Broken(why) => DomainQuestionError::Broken(why),
        })?;
        if self.descriptors.is_empty() {
            return Err(DomainQuestionError::Nothing);
        }
        let descriptors: Result<Vec<_>, _> =
            self.descriptors.iter().map(|text| entries(text)).collect();
        Ok((domain, descriptors?))
    }
}

/// Entries.
type Descriptor<'a> = Vec<(&'a str, &'a str)>;

fn entries(text: &str) -> Result<Vec<(&str, &str)>, DomainQuestionError> {
    let entry = |one| {
        let (key, value) = str::split_once(one, '=')?;
        (!key.is_empty()).then_some((key, value))
    };
    let entries = text.split(',').map(entry).collect::<Option<_>>();
    entries.ok_or_else(|| DomainQuestionError::Descriptor(text.to_owned()))
}

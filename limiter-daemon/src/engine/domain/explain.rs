//! Which limits descriptors meet, why, and at what counts; nothing is charged.

use serde::{Deserialize, Serialize};

use super::decide::{Meets, Standings, Status};
use super::stored::Stored;
use super::{Asked, Domain, Hits, Undecided};
use crate::engine::explain::{clean, written};
use crate::engine::time::Now;

const MILLISECOND: u64 = 1_000_000;

/// What is said of a domain's descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSaid {
    pub domain: String,
    /// What becomes of a request with one hit for each, in a sentence.
    pub answer: String,
    pub descriptors: Vec<DescriptorSaid>,
}

/// What is said of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorSaid {
    /// `key=value,key=value`
    pub descriptor: String,
    /// How each entry was matched.
    pub steps: Vec<String>,
    /// `domain.key_value.key` of the limit that it leads to.
    pub rule: Option<String>,
    /// As `5 a minute (per-user), in shadow mode`.
    pub limit: Option<String>,
    /// Where that is written: `file:line (resource)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// The limit does not apply: it is replaced by that of another descriptor.
    pub replaced: bool,
    /// Its key in the store that nodes share, up to the window; `None`: it is counted here, or not at
    /// all.
    pub key: Option<String>,
    /// Only of a running daemon.
    pub count: Option<CountSaid>,
}

/// A count now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountSaid {
    /// Whole hits left.
    pub remaining: u64,
    /// Milliseconds until all are there again, rounded up.
    pub reset_ms: u64,
}

impl Domain {
    /// Explains descriptors, each of which has one hit. `look`: at the counts, too.
    ///
    /// # Errors
    /// When the store that has the counts does not answer.
    pub async fn explain(
        &self,
        descriptors: &[Vec<(&str, &str)>],
        look: bool,
        now: Now,
    ) -> Result<DomainSaid, Undecided> {
        let asked: Vec<Asked<'_>> = descriptors
            .iter()
            .map(|entries| Asked {
                entries,
                limit: None,
                hits: Hits::Take(1),
            })
            .collect();
        let met = self.meet(&asked);
        let mut said: Vec<DescriptorSaid> = asked
            .iter()
            .zip(&met)
            .map(|(asked, met)| self.descriptor(asked, met.is_none()))
            .collect();
        let (mut over, mut quotas) = (Vec::new(), Vec::new());
        if look {
            for (index, status) in self.statuses(met, &asked, now).await?.iter().enumerate() {
                let Some(limited) = status.limited.as_ref().filter(|_| status.limit.is_some())
                else {
                    continue;
                };
                said[index].count = Some(CountSaid {
                    remaining: status.remaining,
                    reset_ms: status.reset.div_ceil(MILLISECOND),
                });
                let none_left = status.remaining == 0;
                if limited.quota() && !limited.shadow() {
                    quotas.push(none_left);
                } else if none_left && !limited.shadow() {
                    over.push(limited.rule().to_owned());
                }
            }
        }
        let quota_over = !quotas.is_empty() && quotas.iter().all(|over| *over);
        let limits = said
            .iter()
            .filter(|one| one.limit.is_some() && !one.replaced);
        let answer = match (limits.count(), over.first()) {
            (0, _) => "it passes: nothing limits it".to_owned(),
            (limits, _) if !look => {
                format!("{limits} limits decide; a running daemon knows counts")
            }
            (_, Some(rule)) => format!("it is over the limit {}", clean(rule)),
            _ if quota_over => "it is over all of its quotas".to_owned(),
            _ => "it passes".to_owned(),
        };
        let answer = if self.shadow && answer.starts_with("it is over") {
            format!("it passes, for all is in shadow mode; else {answer}")
        } else {
            answer
        };
        Ok(DomainSaid {
            domain: clean(&self.name),
            answer,
            descriptors: said,
        })
    }

    async fn statuses(
        &self,
        met: Meets,
        asked: &[Asked<'_>],
        now: Now,
    ) -> Result<Vec<Status>, Undecided> {
        let (standings, now) = match &self.stored {
            Some(stored) => stored.look(&met, asked, now).await?,
            None => {
                let standings: Standings = met
                    .iter()
                    .map(|met| met.as_ref().and_then(|met| met.standing(now)))
                    .collect();
                (standings, now)
            }
        };
        let all = met.into_iter().zip(standings);
        let status = |(met, standing): (Option<super::decide::Met>, _)| {
            met.map_or_else(Status::default, |met| met.status(standing, now))
        };
        Ok(all.map(status).collect())
    }

    fn descriptor(&self, asked: &Asked<'_>, unmet: bool) -> DescriptorSaid {
        let entries = asked.entries.iter();
        let entries: Vec<String> = entries
            .map(|(key, value)| format!("{}={}", clean(key), clean(value)))
            .collect();
        let limited = self.limit(asked);
        let limit = limited.as_ref().map(|limited| {
            let mut words = limited.amount().map_or_else(
                || "unlimited".to_owned(),
                |amount| format!("{} a {}", amount.requests, amount.unit.name()),
            );
            if let Some(name) = limited.name() {
                words.push_str(&format!(" ({})", clean(name)));
            }
            if limited.shadow() {
                words.push_str(", in shadow mode");
            }
            if limited.quota() {
                words.push_str(", a quota");
            }
            words
        });
        let key = self.stored.as_deref().zip(limited.as_ref());
        DescriptorSaid {
            descriptor: entries.join(","),
            steps: self.trace(asked.entries),
            rule: limited.as_ref().map(|limited| clean(limited.rule())),
            replaced: unmet && limited.is_some(),
            key: key.and_then(|(stored, limited): (&Stored, _)| {
                let key = stored.key(limited, asked.entries)?;
                Some(clean(&key))
            }),
            written: limited
                .as_ref()
                .and_then(|limited| Some(written(limited.written()?))),
            limit,
            count: None,
        }
    }
}

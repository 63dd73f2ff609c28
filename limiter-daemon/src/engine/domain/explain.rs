//! Which limits descriptors meet, why, and at what counts; nothing is charged.

use serde::{Deserialize, Serialize};

use super::decide::{Meets, Standings, Status};
use super::{Asked, Domain, Hits, Limited, Undecided};
use crate::engine::explain::{clean, written};
use crate::engine::time::Now;

const MILLISECOND: u64 = 1_000_000;

/// What is said of a domain's descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSaid {
    pub domain: String,
    /// What becomes of a request with one hit for each, in a sentence.
    pub answer: String,
    /// In their order; one that meets several limits is there once for each.
    pub descriptors: Vec<DescriptorSaid>,
}

/// What is said of one, and of one limit.
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
    /// The limit does not apply: that of another descriptor weighs more.
    #[serde(default)]
    pub outweighed: bool,
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
        let asked = asked(descriptors);
        let met = self.meet(&asked);
        let (mut said, of_met) = self.said(&asked, &met);
        let (mut over, mut quotas) = (Vec::new(), Vec::new());
        if look {
            for (index, status) in self.statuses(met, now).await?.iter().enumerate() {
                let Some(limited) = status.limited.as_ref().filter(|_| status.limit.is_some())
                else {
                    continue;
                };
                said[of_met[index]].count = Some(CountSaid {
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
            .filter(|one| one.limit.is_some() && !one.replaced && !one.outweighed);
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

    /// Which limits descriptors meet, and which do not apply, in words: `meets custom.user: 5 a minute`.
    /// Values of requests are not in them.
    pub(in crate::engine) fn meets(&self, descriptors: &[Vec<(&str, &str)>]) -> Vec<String> {
        let asked = asked(descriptors);
        let (said, _) = self.said(&asked, &self.meet(&asked));
        let line = |one: DescriptorSaid| {
            let limit = format!("{}: {}", one.rule?, one.limit?);
            Some(match (one.outweighed, one.replaced) {
                (true, _) => format!("not {limit}; another weighs more"),
                (_, true) => format!("not {limit}; another replaces it"),
                (false, false) => format!("meets {limit}"),
            })
        };
        said.into_iter().filter_map(line).collect()
    }

    async fn statuses(&self, mut met: Meets, now: Now) -> Result<Vec<Status>, Undecided> {
        let (standings, now) = match &self.stored {
            Some(stored) => stored.look(&mut met, now).await?,
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

    /// What is said of each descriptor and limit, and which of it is about which of `met`.
    fn said(&self, asked: &[Asked<'_>], met: &Meets) -> (Vec<DescriptorSaid>, Vec<usize>) {
        let (mut said, mut of_met) = (Vec::new(), vec![0; met.len()]);
        for (of, asked) in asked.iter().enumerate() {
            let mut alone = true;
            for (index, met) in met.iter().enumerate() {
                let Some(met) = met.as_ref().filter(|met| met.of == of) else {
                    continue;
                };
                of_met[index] = said.len();
                let mut one = self.descriptor(asked, Some(&met.limited));
                one.key = met.key.as_deref().map(clean);
                if !alone {
                    one.steps.clear();
                }
                said.push(one);
                alone = false;
            }
            if alone {
                let limited = self.limit(asked);
                let mut one = self.descriptor(asked, limited.as_ref());
                let weight = limited.as_ref().and_then(Limited::weight);
                let weighed = met.iter().flatten().filter_map(|met| met.limited.weight());
                let most = weighed.map(|(weight, _)| weight).max().unwrap_or_default();
                one.outweighed = weight.is_some_and(|(weight, _)| weight < most);
                one.replaced = limited.is_some() && !one.outweighed;
                said.push(one);
            }
        }
        (said, of_met)
    }

    fn descriptor(&self, asked: &Asked<'_>, limited: Option<&Limited>) -> DescriptorSaid {
        let entries = asked.entries.iter();
        let entries: Vec<String> = entries
            .map(|(key, value)| format!("{}={}", clean(key), clean(value)))
            .collect();
        DescriptorSaid {
            descriptor: entries.join(","),
            steps: match self.set(asked) {
                Some((sets, set)) => sets.trace(set),
                None => self.trace(asked.entries),
            },
            rule: limited.map(|limited| clean(limited.rule())),
            limit: limited.map(words),
            written: limited.and_then(|limited| Some(written(limited.written()?))),
            replaced: false,
            outweighed: false,
            key: None,
            count: None,
        }
    }
}

/// One hit for each.
pub(super) fn asked<'a>(descriptors: &'a [Vec<(&'a str, &'a str)>]) -> Vec<Asked<'a>> {
    let one = |entries: &'a Vec<(&'a str, &'a str)>| Asked {
        entries,
        limit: None,
        hits: Hits::Take(1),
    };
    descriptors.iter().map(one).collect()
}

/// As `5 a minute (per-user), in shadow mode`.
pub(super) fn words(limited: &Limited) -> String {
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
    let (weight, always) = limited.weight().unwrap_or_default();
    if weight > 0 {
        words.push_str(&format!(", weight {weight}"));
    }
    if always {
        words.push_str(", always applies");
    }
    words
}

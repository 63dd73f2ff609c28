//! Keys of windows by the server's clock.
//!
//! Where the key of a count names its window, whoever asks must know which window it is by the
//! server's clock. What that clock says is estimated from its last answer; the script looks whether
//! it is so, and if it is not, changes nothing and says what time it is, and the question is asked
//! once more. So nodes whose clocks disagree count in the same windows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::engine::store::ledger::{
    Asking, Change, Conforms, Form, Ledger, Question, Reply, Role, Unanswered,
};
use crate::engine::time::Now;

const SECOND: u64 = 1_000_000_000;

/// A ledger whose plain counts ([`Form::Plain`]) are asked for by the keys of their windows.
#[derive(Debug)]
pub struct Windows {
    ledger: Arc<dyn Ledger>,
    budget: Duration,
    /// Nanoseconds that the server's clock is ahead of this node's; with them the time of a way there.
    ahead: Arc<AtomicI64>,
}

impl Windows {
    /// `budget`: what both questions may take together.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, budget: Duration) -> Self {
        Self {
            ledger,
            budget,
            ahead: Arc::default(),
        }
    }
}

impl Ledger for Windows {
    fn ask(&self, question: Question, now: Now) -> Option<Asking> {
        let mut forms = question.items.iter().map(|item| item.form);
        if !forms.any(|form| form == Form::Plain { begins: None }) {
            return self.ledger.ask(question, now);
        }
        let began = Instant::now();
        let by_server = now
            .unix
            .saturating_add_signed(self.ahead.load(Ordering::Relaxed));
        let first = self.ledger.ask(named(&question, |_| by_server), now)?;
        let (ledger, budget) = (Arc::clone(&self.ledger), self.budget);
        let ahead = Arc::clone(&self.ahead);
        Some(Box::pin(async move {
            let reply = first.await?;
            let found = i128::from(reply.now.unix) - i128::from(now.unix);
            ahead.store(i64::try_from(found).unwrap_or(0), Ordering::Relaxed);
            if !is_other(&reply) {
                return Ok(reply);
            }
            let now = later(now, began);
            let mut question = named(&question, |item| reply.now_of(item).unix);
            // Of several servers, those whose windows were right have given back already.
            for (item, said) in question.items.iter_mut().zip(&reply.said) {
                if item.role == Role::Refund && said.conforms == Conforms::Yes {
                    item.tokens = 0;
                }
            }
            let left = budget.saturating_sub(began.elapsed());
            let Some(second) = ledger.ask(question, now) else {
                return Err(Unanswered { now });
            };
            match timeout(left, second).await {
                Ok(Ok(reply)) if !is_other(&reply) => Ok(reply),
                Ok(Err(unanswered)) => Err(unanswered),
                // A whole window went by between the two, or the budget is over.
                Ok(Ok(_)) | Err(_) => Err(Unanswered {
                    now: later(now, began),
                }),
            }
        }))
    }

    fn change(&self, changes: Vec<Change>, now: Now) {
        self.ledger.change(changes, now);
    }

    fn join(&self) {
        self.ledger.join();
    }
}

fn later(now: Now, began: Instant) -> Now {
    let passed = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Now {
        mono: now.mono.saturating_add(passed),
        unix: now.unix.saturating_add(passed),
    }
}

fn is_other(reply: &Reply) -> bool {
    let mut said = reply.said.iter();
    said.any(|one| one.conforms == Conforms::OtherWindow)
}

/// The question with the keys of the windows at these times, one for each item.
fn named(question: &Question, unix: impl Fn(usize) -> u64) -> Question {
    let mut question = question.clone();
    for (index, item) in question.items.iter_mut().enumerate() {
        if let Form::Plain { begins: None } = item.form {
            let length = item.meter.window().max(1);
            let begins = unix(index) / SECOND / length * length;
            item.key.push_str(&begins.to_string());
            item.form = Form::Plain {
                begins: Some(begins),
            };
        }
    }
    question
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::engine::charge::Few;
    use crate::engine::meter::{Meter, Reading};
    use crate::engine::store::ledger::{Item, Said};
    use crate::policy::plan::Algorithm;

    /// A server with a clock of its own.
    #[derive(Debug, Default)]
    struct Server {
        unix: Mutex<u64>,
        keys: Mutex<Vec<String>>,
        /// What was to be given back.
        given_back: Mutex<u64>,
        /// Seconds that go by with every question.
        pace: u64,
    }

    impl Ledger for Server {
        fn ask(&self, question: Question, _now: Now) -> Option<Asking> {
            let mut unix = self.unix.lock().unwrap();
            *unix += self.pace * SECOND;
            let now = *unix;
            let mut said = Few::new();
            for item in &question.items {
                self.keys.lock().unwrap().push(item.key.clone());
                let Form::Plain {
                    begins: Some(begins),
                } = item.form
                else {
                    panic!("{item:?}");
                };
                // As of several servers: those that give back have the other clock.
                let conforms = if item.role == Role::Refund {
                    *self.given_back.lock().unwrap() += item.tokens;
                    Conforms::Yes
                } else if begins == now / SECOND / 60 * 60 {
                    Conforms::Yes
                } else {
                    Conforms::OtherWindow
                };
                let reading = Reading::Counts {
                    end: begins + 60,
                    count: 1,
                    last: 0,
                };
                said.push(Said::new(conforms, reading));
            }
            let now = Now {
                mono: now,
                unix: now,
            };
            Some(Box::pin(async move {
                Ok(Reply {
                    now,
                    said,
                    clocks: Few::new(),
                })
            }))
        }

        fn change(&self, _changes: Vec<Change>, _now: Now) {}
    }

    fn question() -> Question {
        let limit = limiter_common::Limit::new(5, 5, 60 * SECOND).unwrap();
        let item = Item {
            key: "d_k_v_".to_owned(),
            meter: Meter::new(limit, Algorithm::FixedWindow, 60, false),
            tokens: 1,
            role: Role::Enforced,
            form: Form::Plain { begins: None },
            lease: None,
            again: 0,
        };
        Question {
            denials: 0,
            items: std::iter::once(item).collect(),
        }
    }

    fn ask(windows: &Windows, unix: u64) -> Result<Reply, Unanswered> {
        ask_for(windows, question(), unix)
    }

    fn ask_for(windows: &Windows, question: Question, unix: u64) -> Result<Reply, Unanswered> {
        let now = Now {
            mono: 0,
            unix: unix * SECOND,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(windows.ask(question, now).unwrap())
    }

    #[test]
    fn the_window_is_that_of_the_servers_clock() {
        let server = Arc::new(Server {
            unix: Mutex::new(1_000 * SECOND),
            ..Server::default()
        });
        let ledger = Arc::<Server>::clone(&server);
        let windows = Windows::new(ledger, Duration::from_secs(60));
        // This node's clock is ten minutes behind: one more question, and then it is known.
        assert!(ask(&windows, 400).is_ok());
        assert!(ask(&windows, 400).is_ok());
        *server.unix.lock().unwrap() = 1_050 * SECOND;
        assert!(ask(&windows, 450).is_ok());
        let keys = server.keys.lock().unwrap().clone();
        assert_eq!(keys, ["d_k_v_360", "d_k_v_960", "d_k_v_960", "d_k_v_1020"]);
    }

    #[test]
    fn what_one_server_has_given_back_is_not_given_back_again() {
        let server = Arc::new(Server {
            unix: Mutex::new(1_000 * SECOND),
            ..Server::default()
        });
        let ledger = Arc::<Server>::clone(&server);
        let windows = Windows::new(ledger, Duration::from_secs(60));
        let mut question = question();
        let mut back = question.items[0].clone();
        back.role = Role::Refund;
        back.tokens = 3;
        question.items.push(back);
        assert!(ask_for(&windows, question, 400).is_ok());
        assert_eq!(server.keys.lock().unwrap().len(), 4);
        assert_eq!(*server.given_back.lock().unwrap(), 3);
    }

    #[test]
    fn a_server_whose_windows_fly_by_has_not_answered() {
        let server = Arc::new(Server {
            unix: Mutex::new(1_000 * SECOND),
            pace: 60,
            ..Server::default()
        });
        let ledger = Arc::<Server>::clone(&server);
        let windows = Windows::new(ledger, Duration::from_secs(60));
        assert!(ask(&windows, 400).is_err());
        assert_eq!(server.keys.lock().unwrap().len(), 2);
    }
}

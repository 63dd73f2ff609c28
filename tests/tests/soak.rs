//! A short soak: what `cargo xtask soak` does for minutes, for some rounds.

use anyhow::Result;
use tests::soak::{Length, run};

#[test]
fn nothing_is_left_behind_and_nothing_grows() -> Result<()> {
    let report = run(Length::Rounds(20), 1, |line| println!("{line}"))?;
    println!("{report}");
    Ok(())
}

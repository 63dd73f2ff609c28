//! Shares.

/// `numerator` of `denominator`, which is not 0 and not less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    pub numerator: u32,
    pub denominator: u32,
}

impl Fraction {
    pub const NONE: Self = Self::percent(0);
    pub const ALL: Self = Self::percent(100);

    /// So many of a hundred.
    #[must_use]
    pub const fn percent(numerator: u32) -> Self {
        Self {
            numerator,
            denominator: 100,
        }
    }

    /// Whether `random`, which is evenly spread, falls into the share.
    #[must_use]
    pub const fn takes(self, random: u64) -> bool {
        self.numerator >= self.denominator
            || random % (self.denominator as u64) < self.numerator as u64
    }

    /// The share of `whole`, rounded down.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what does not fit is cut off before"
    )]
    pub const fn of(self, whole: u64) -> u64 {
        let part = (whole as u128) * (self.numerator as u128) / (self.denominator as u128);
        if part > u64::MAX as u128 {
            u64::MAX
        } else {
            part as u64
        }
    }

    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_its_part() {
        let third = Fraction {
            numerator: 1,
            denominator: 3,
        };
        assert_eq!((0..300).filter(|n| third.takes(*n)).count(), 100);
        assert_eq!(third.of(100), 33);
        assert!(!Fraction::NONE.takes(0) && Fraction::ALL.takes(u64::MAX));
        assert_eq!(Fraction::ALL.of(u64::MAX), u64::MAX);
    }
}

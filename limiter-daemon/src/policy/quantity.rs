//! Numbers that may be written as Kubernetes quantities.

use super::decode::{At, NumberOrText};
use super::findings::Scope;
use super::units::digits;

/// A number or a Kubernetes quantity, or an error at it.
pub(crate) fn read(raw: &At<NumberOrText>, scope: &mut Scope<'_>) -> Option<u64> {
    match &raw.value {
        NumberOrText::Number(number) => Some(*number),
        NumberOrText::Text(text) => match parse_quantity(text) {
            Ok(number) => Some(number),
            Err(problem) => {
                let message = format!("`{text}` is not a quantity: {problem}");
                scope.error(
                    &raw.mark,
                    message,
                    "write a whole number, or one as `512k`, `10Mi` or `1.5G`",
                );
                None
            }
        },
    }
}

/// Kubernetes quantities without signs, exponents and thousandths: nothing here has them.
fn parse_quantity(text: &str) -> Result<u64, &'static str> {
    const TOO_LARGE: &str = "it is larger than 2^64 - 1";
    const UNEVEN: &str = "it is not a whole number of bytes";
    let (whole, after) = digits(text);
    let (decimals, suffix) = match after.strip_prefix('.') {
        Some(after) => digits(after),
        None => ("", after),
    };
    if whole.is_empty() {
        return Err("a number is due before the suffix, and no sign");
    }
    let factor = factor(suffix)?;
    let whole: u64 = whole.parse().map_err(|_error| TOO_LARGE)?;
    let decimals = decimals.trim_end_matches('0');
    let scale = u32::try_from(decimals.len())
        .ok()
        .filter(|digits| *digits <= 18)
        .map(|digits| 10_u128.pow(digits))
        .ok_or(UNEVEN)?;
    let part = match decimals {
        "" => 0,
        _ => decimals.parse::<u128>().map_err(|_error| UNEVEN)? * u128::from(factor),
    };
    if part % scale != 0 {
        return Err(UNEVEN);
    }
    let sum = u128::from(whole) * u128::from(factor) + part / scale;
    u64::try_from(sum).map_err(|_error| TOO_LARGE)
}

fn factor(suffix: &str) -> Result<u64, &'static str> {
    Ok(match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => {
            return Err(
                "the suffixes are `k`, `M`, `G`, `T`, `P`, `E` and `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`",
            );
        }
    })
}

#[cfg(test)]
mod tests {
    use super::parse_quantity;

    #[test]
    fn quantities() {
        let suffixes =
            "the suffixes are `k`, `M`, `G`, `T`, `P`, `E` and `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`";
        let sign = "a number is due before the suffix, and no sign";
        let large = "it is larger than 2^64 - 1";
        let table = [
            ("0", Ok(0)),
            ("1500", Ok(1500)),
            ("512k", Ok(512_000)),
            ("10Mi", Ok(10 << 20)),
            ("1G", Ok(1_000_000_000)),
            ("1.5Ki", Ok(1536)),
            ("1.25Ki", Ok(1280)),
            ("2.50", Err("it is not a whole number of bytes")),
            ("0.1Ki", Err("it is not a whole number of bytes")),
            ("1.0", Ok(1)),
            ("15Ei", Ok(15 << 60)),
            ("16Ei", Err(large)),
            ("19E", Err(large)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(large)),
            ("99999999999999999999999999999999999999999Ei", Err(large)),
            ("", Err(sign)),
            ("-1k", Err(sign)),
            ("Mi", Err(sign)),
            ("10MB", Err(suffixes)),
            ("10 M", Err(suffixes)),
            ("10m", Err(suffixes)),
            ("10K", Err(suffixes)),
        ];
        for (text, expected) in table {
            assert_eq!(parse_quantity(text), expected, "{text}");
        }
    }
}

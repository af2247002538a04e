//! Money: an integer of minor units and an ISO 4217 code, with checked arithmetic.
//!
//! No exchange, no rounding, no floating point: an order has one currency, prices come from the catalogue.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code::NotACode;

/// Three upper-case letters, as ISO 4217 writes them. Whether the code is in use is not checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// The US dollar, the currency of the demonstration data.
    pub const USD: Self = Self(*b"USD");

    /// Parses a code such as `EUR`.
    ///
    /// # Errors
    /// [`NotACode`] unless the text is exactly three upper-case ASCII letters.
    pub fn parse(text: &str) -> Result<Self, NotACode> {
        match text.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(|letter| letter.is_ascii_uppercase()) => Ok(Self([*a, *b, *c])),
            _ => Err(NotACode::new("currency", text)),
        }
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three ASCII letters are UTF-8")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Currency {
    type Error = NotACode;

    fn try_from(text: String) -> Result<Self, NotACode> {
        Self::parse(&text)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

/// An amount in minor units (cents) of one currency. May be zero or negative where a sum needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// Minor units: 198 is 1.98 in a currency with two decimals.
    pub amount: i64,
    /// ISO 4217.
    pub currency: Currency,
}

/// Why a sum of money has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The amount leaves 64 bits.
    #[error("the amount is too large")]
    Overflow,
    /// Two currencies cannot be added.
    #[error("{0} and {1} cannot be added")]
    Currencies(Currency, Currency),
}

impl Money {
    /// An amount of minor units.
    #[must_use]
    pub fn new(amount: i64, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// The sum of two amounts of one currency.
    ///
    /// # Errors
    /// [`MoneyError`] on overflow or when the currencies differ.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Currencies(self.currency, other.currency));
        }
        let amount = self.amount.checked_add(other.amount).ok_or(MoneyError::Overflow)?;
        Ok(Self { amount, ..self })
    }

    /// The price of `quantity` pieces at this unit price.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] when the product leaves 64 bits.
    pub fn checked_mul(self, quantity: i64) -> Result<Self, MoneyError> {
        let amount = self.amount.checked_mul(quantity).ok_or(MoneyError::Overflow)?;
        Ok(Self { amount, ..self })
    }
}

impl fmt::Display for Money {
    /// `1.98 USD`. Two decimals are assumed: this is for logs and people, not for arithmetic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.amount < 0 { "-" } else { "" };
        let minor = self.amount.unsigned_abs();
        write!(f, "{sign}{}.{:02} {}", minor / 100, minor % 100, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(amount: i64) -> Money {
        Money::new(amount, Currency::USD)
    }

    #[test]
    fn sums_are_checked() {
        assert_eq!(usd(1).checked_add(usd(2)), Ok(usd(3)));
        assert_eq!(usd(i64::MAX).checked_add(usd(1)), Err(MoneyError::Overflow));
        assert_eq!(usd(i64::MAX).checked_mul(2), Err(MoneyError::Overflow));
    }

    #[test]
    fn currencies_do_not_mix() {
        let euro = Currency::parse("EUR").unwrap();
        let sum = usd(1).checked_add(Money::new(1, euro));
        assert_eq!(sum, Err(MoneyError::Currencies(Currency::USD, euro)));
    }

    #[test]
    fn a_currency_is_three_upper_case_letters() {
        for bad in ["", "US", "usd", "USDX", "U1D", "ÜSD"] {
            assert!(Currency::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn money_reads_as_people_write_it() {
        assert_eq!(usd(198).to_string(), "1.98 USD");
        assert_eq!(usd(-5).to_string(), "-0.05 USD");
    }
}

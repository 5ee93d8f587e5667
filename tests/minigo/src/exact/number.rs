//! Values of constants, and their arithmetic.

use go_parser::{Token, TokenData};
use go_types::ConstValue;
use num_bigint::{BigInt, BigUint, Sign};
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// True: an integer; its division drops the remainder.
    Number(BigRational, bool),
    Bool(bool),
}

impl Value {
    /// The result of an operator with one operand; none if it is not one of constants.
    pub(super) fn unary(self, op: &Token) -> Option<Value> {
        Some(match (op, self) {
            (Token::ADD, v) => v,
            (Token::SUB, Value::Number(n, int)) => Value::Number(-n, int),
            (Token::NOT, Value::Bool(b)) => Value::Bool(!b),
            _ => return None,
        })
    }

    /// The result of an operator with two operands; none if it is not one of constants.
    pub(super) fn binary(self, op: &Token, other: Value) -> Option<Value> {
        Some(match (self, other) {
            (Value::Bool(x), Value::Bool(y)) => Value::Bool(match op {
                Token::LAND => x && y,
                Token::LOR => x || y,
                Token::EQL => x == y,
                Token::NEQ => x != y,
                _ => return None,
            }),
            (Value::Number(x, i), Value::Number(y, j)) => match op {
                Token::ADD => Value::Number(x + y, i && j),
                Token::SUB => Value::Number(x - y, i && j),
                Token::MUL => Value::Number(x * y, i && j),
                Token::QUO if y.is_zero() => return None,
                Token::QUO if i && j => Value::Number((x / y).trunc(), true),
                Token::QUO => Value::Number(x / y, false),
                Token::SHL if x.is_integer() => {
                    let factor = BigInt::from(2).pow(y.to_u32().filter(|n| *n < 2000)?);
                    Value::Number(x * factor, true)
                }
                Token::EQL => Value::Bool(x == y),
                Token::NEQ => Value::Bool(x != y),
                Token::LSS => Value::Bool(x < y),
                Token::LEQ => Value::Bool(x <= y),
                Token::GTR => Value::Bool(x > y),
                Token::GEQ => Value::Bool(x >= y),
                _ => return None,
            },
            _ => return None,
        })
    }
}

pub(super) fn from_front(v: &ConstValue) -> Option<BigRational> {
    match v {
        ConstValue::Int(i) => i.to_string().parse::<BigInt>().ok().map(BigRational::from_integer),
        ConstValue::Rat(r) => r.to_string().parse().ok(),
        _ => None,
    }
}

/// A decimal literal.
pub(super) fn decimal(t: &TokenData) -> Option<BigRational> {
    let text = t.as_str().replace('_', "");
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.trim_start_matches('+').parse::<i64>().ok()?),
        None => (&text[..], 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: BigInt = format!("0{whole}{fraction}").parse().ok()?;
    let exponent = exponent - fraction.len() as i64;
    let power =
        BigInt::from(10).pow(u32::try_from(exponent.unsigned_abs()).ok().filter(|e| *e <= 5000)?);
    Some(if exponent < 0 {
        BigRational::new(digits, power)
    } else {
        BigRational::from_integer(digits * power)
    })
}

/// The nearest binary float with `bits` bits of mantissa whose last bit is worth at least
/// 2^`lowest`; ties to even.
pub(super) fn nearest(n: &BigRational, bits: i64, lowest: i64) -> f64 {
    if n.is_zero() {
        return 0.0;
    }
    let (top, bottom): (BigUint, BigUint) =
        (n.numer().magnitude().clone(), n.denom().magnitude().clone());
    // The value of the last bit, so that the quotient has `bits` bits.
    let size = top.bits() as i64 - bottom.bits() as i64;
    let mut last = (size - bits).max(lowest);
    let quotient = |last: i64| match last {
        0.. => (top.clone(), &bottom << last as usize),
        _ => (&top << last.unsigned_abs() as usize, bottom.clone()),
    };
    loop {
        let (a, b) = quotient(last);
        let whole = &a / &b;
        if whole.bits() as i64 > bits {
            last += 1;
            continue;
        }
        let twice = (&a - &whole * &b) * 2u32;
        let odd = whole.bit(0);
        let up = twice > b || (twice == b && odd);
        let mantissa = whole.to_u64().unwrap_or(0) + u64::from(up);
        let magnitude =
            mantissa as f64 * 2f64.powi((last / 2) as i32) * 2f64.powi((last - last / 2) as i32);
        let magnitude =
            if bits == 24 && magnitude > f64::from(f32::MAX) { f64::INFINITY } else { magnitude };
        return if n.numer().sign() == Sign::Minus || n.is_negative() {
            -magnitude
        } else {
            magnitude
        };
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;
    use num_bigint::BigInt;
    use num_rational::BigRational;

    fn ratio(a: i64, b: i64) -> BigRational {
        BigRational::new(BigInt::from(a), BigInt::from(b))
    }

    #[test]
    fn ratios_are_rounded_to_the_nearest_float() {
        for (a, b) in
            [(1, 3), (1, 10), (3, 10), (-7, 9), (i64::MAX, 1), (1, i64::MAX), (123_456_789, 1000)]
        {
            let exact = nearest(&ratio(a, b), 53, -1074);
            if a.unsigned_abs() < 1 << 53 && b < 1 << 53 {
                assert_eq!(exact, a as f64 / b as f64);
            }
        }
        assert_eq!(nearest(&ratio(16_777_217, 1), 24, -149), 16_777_216.0);
        assert_eq!(nearest(&ratio(1, 10), 24, -149), f64::from(0.1f32));
    }

    #[test]
    fn small_numbers_lose_bits() {
        let tiny = BigRational::new(BigInt::from(1), BigInt::from(2).pow(1074));
        assert_eq!(nearest(&tiny, 53, -1074), f64::from_bits(1));
        assert_eq!(nearest(&(tiny / BigInt::from(4)), 53, -1074), 0.0);
    }
}

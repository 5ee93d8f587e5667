//! Random programs about the order of evaluation. The generator knows what each prints; where real
//! Go is installed, it has to print the same.
//!
//! A statement is made of calls that leave a trace, and of operations that may panic. All calls of
//! a statement are made first, in their order, each with its arguments evaluated; then the other
//! operations; then an assignment stores, from left to right. Where one panics, what came before
//! has happened. (Go's compiler leaves what no store can change to the moment of its own store.)
//!
//! `STACKMARK_PROGRAMS` sets how many programs are made.
#[macro_use]
mod runner;

use runner::minigo;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const STATEMENTS: usize = 60;
const PROGRAMS: u64 = 6;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// What is wrong in an evaluation: the text of the panic.
type Panic = &'static str;
const NIL: Panic = "nil";
const INDEX: Panic = "index";
const DIVIDE: Panic = "divide";
const NIL_MAP: Panic = "map";

const LEN: i64 = 4;

/// The variables of the program.
#[derive(Clone, Debug)]
struct State {
    trace: Vec<i64>,
    x: i64,
    y: i64,
    array: [i64; LEN as usize],
    slice: [i64; LEN as usize],
    map: std::collections::BTreeMap<i64, i64>,
    /// What `full` points to.
    field: i64,
}

/// An expression of type int. A call has a number in the trace.
enum Expr {
    Number(i64),
    X,
    Y,
    /// `f(k, e)`: leaves k, returns e.
    Call(i64, Box<Expr>),
    /// `g(k, a, b)`: leaves k, returns a.
    Both(i64, Box<Expr>, Box<Expr>),
    /// `o(k).m(l, e)`: leaves k, then l; returns e.
    Method(i64, i64, Box<Expr>),
    /// `<-c(k, e)`: leaves k, receives e.
    Receive(i64, Box<Expr>),
    /// `a + b`, `a / b`.
    Add(Box<Expr>, Box<Expr>),
    Divide(Box<Expr>, Box<Expr>),
    /// `array[i]`, `slice[i]`, `table[i]`.
    Array(Box<Expr>),
    Slice(Box<Expr>),
    Map(Box<Expr>),
    /// `*null`, `null.n`, `full.n`.
    Null,
    NullField,
    Field,
    /// `s(k)[i]`: a slice from a call.
    SliceOf(i64, Box<Expr>),
    /// `when(b(k) && b(l))` in one of its forms: which values the calls return.
    Both2(i64, bool, i64, bool, bool),
    /// `sum([]int{...})`, `sum([4]int{...})`, `len(map[int]int{...})`.
    List(Vec<Expr>),
    Literal(Vec<(Expr, Expr)>),
    /// `len(append(s(k), ...))`
    Append(i64, Vec<Expr>),
}

/// The values of calls that have been made, in the order in which their expressions are met.
#[derive(Default)]
struct Made(std::collections::VecDeque<i64>);

impl Expr {
    fn text(&self) -> String {
        let all = |list: &[Expr]| list.iter().map(Expr::text).collect::<Vec<_>>().join(", ");
        match self {
            Expr::Number(n) => n.to_string(),
            Expr::X => "x".into(),
            Expr::Y => "y".into(),
            Expr::Call(k, e) => format!("f({k}, {})", e.text()),
            Expr::Both(k, a, b) => format!("g({k}, {}, {})", a.text(), b.text()),
            Expr::Method(k, l, e) => format!("o({k}).m({l}, {})", e.text()),
            Expr::Receive(k, e) => format!("<-c({k}, {})", e.text()),
            Expr::Add(a, b) => format!("({} + {})", a.text(), b.text()),
            Expr::Divide(a, b) => format!("({} / {})", a.text(), b.text()),
            Expr::Array(i) => format!("array[{}]", i.text()),
            Expr::Slice(i) => format!("slice[{}]", i.text()),
            Expr::Map(i) => format!("table[{}]", i.text()),
            Expr::Null => "*null".into(),
            Expr::NullField => "nothing.n".into(),
            Expr::Field => "full.n".into(),
            Expr::SliceOf(k, i) => format!("s({k})[{}]", i.text()),
            Expr::Both2(k, a, l, b, and) => {
                format!("when(b({k}, {a}) {} b({l}, {b}))", if *and { "&&" } else { "||" })
            }
            Expr::List(list) => format!("sum([]int{{{}}})", all(list)),
            Expr::Literal(list) => {
                let entries: Vec<String> =
                    list.iter().map(|(k, v)| format!("{}: {}", k.text(), v.text())).collect();
                format!("len(map[int]int{{{}}})", entries.join(", "))
            }
            Expr::Append(k, list) => format!("len(append(s({k}), {}))", all(list)),
        }
    }

    /// Makes the calls.
    fn calls(&self, s: &mut State, made: &mut Made) -> Result<(), Panic> {
        match self {
            Expr::Number(_) | Expr::X | Expr::Y | Expr::Null | Expr::NullField | Expr::Field => {}
            Expr::Call(k, e) => {
                let v = e.whole(s)?;
                s.trace.push(*k);
                made.0.push_back(v);
            }
            Expr::Both(k, a, b) => {
                let mut own = Made::default();
                a.calls(s, &mut own)?;
                b.calls(s, &mut own)?;
                let v = a.rest(s, &mut own)?;
                b.rest(s, &mut own)?;
                s.trace.push(*k);
                made.0.push_back(v);
            }
            Expr::Method(k, l, e) => {
                s.trace.push(*k);
                let v = e.whole(s)?;
                s.trace.push(*l);
                made.0.push_back(v);
            }
            Expr::Receive(k, e) => {
                let v = e.whole(s)?;
                s.trace.push(*k);
                made.0.push_back(v);
            }
            Expr::Add(a, b) | Expr::Divide(a, b) => {
                a.calls(s, made)?;
                b.calls(s, made)?;
            }
            Expr::Array(i) | Expr::Slice(i) | Expr::Map(i) => i.calls(s, made)?,
            Expr::SliceOf(k, i) => {
                s.trace.push(*k);
                i.calls(s, made)?;
            }
            Expr::Both2(k, a, l, b, and) => {
                s.trace.push(*k);
                if a == and {
                    s.trace.push(*l);
                }
                let v = if *and { *a && *b } else { *a || *b };
                made.0.push_back(i64::from(v));
            }
            Expr::List(list) => {
                // An argument of a call.
                let mut own = Made::default();
                list.iter().try_for_each(|e| e.calls(s, &mut own))?;
                let mut sum = 0;
                for e in list {
                    sum += e.rest(s, &mut own)?;
                }
                made.0.push_back(sum);
            }
            Expr::Literal(list) => {
                // One entry after the other, as a whole.
                let mut keys = std::collections::BTreeSet::new();
                for (k, v) in list {
                    let mut own = Made::default();
                    k.calls(s, &mut own)?;
                    v.calls(s, &mut own)?;
                    keys.insert(k.rest(s, &mut own)?);
                    v.rest(s, &mut own)?;
                }
                made.0.push_back(keys.len() as i64);
            }
            Expr::Append(k, list) => {
                s.trace.push(*k);
                let mut own = Made::default();
                list.iter().try_for_each(|e| e.calls(s, &mut own))?;
                for e in list {
                    e.rest(s, &mut own)?;
                }
                made.0.push_back(LEN + list.len() as i64);
            }
        }
        Ok(())
    }

    /// Evaluates the rest.
    fn rest(&self, s: &State, made: &mut Made) -> Result<i64, Panic> {
        let element = |list: &[i64], i: i64| {
            usize::try_from(i).ok().and_then(|i| list.get(i)).copied().ok_or(INDEX)
        };
        Ok(match self {
            Expr::Number(n) => *n,
            Expr::X => s.x,
            Expr::Y => s.y,
            Expr::Null | Expr::NullField => return Err(NIL),
            Expr::Field => s.field,
            Expr::Add(a, b) => a.rest(s, made)?.wrapping_add(b.rest(s, made)?),
            Expr::Divide(a, b) => {
                let (a, b) = (a.rest(s, made)?, b.rest(s, made)?);
                if b == 0 {
                    return Err(DIVIDE);
                }
                a.wrapping_div(b)
            }
            Expr::Array(i) => element(&s.array, i.rest(s, made)?)?,
            Expr::Slice(i) => element(&s.slice, i.rest(s, made)?)?,
            Expr::SliceOf(_, i) => element(&[0, 10, 20, 30], i.rest(s, made)?)?,
            Expr::Map(i) => s.map.get(&i.rest(s, made)?).copied().unwrap_or(0),
            _ => made.0.pop_front().expect("the call has been made"),
        })
    }

    fn whole(&self, s: &mut State) -> Result<i64, Panic> {
        let mut made = Made::default();
        self.calls(s, &mut made)?;
        self.rest(s, &mut made)
    }

    /// Whether an assignment to a variable may change what is left to evaluate.
    fn reads_variables(&self) -> bool {
        match self {
            Expr::X | Expr::Y | Expr::Null | Expr::NullField | Expr::Field => true,
            Expr::Array(_) | Expr::Slice(_) | Expr::Map(_) | Expr::SliceOf(..) => true,
            Expr::Add(a, b) | Expr::Divide(a, b) => a.reads_variables() || b.reads_variables(),
            _ => false,
        }
    }

    fn may_panic(&self) -> bool {
        match self {
            Expr::Null | Expr::NullField | Expr::Divide(..) => true,
            Expr::Array(i) | Expr::Slice(i) | Expr::SliceOf(_, i) => {
                !matches!(**i, Expr::Number(_)) || i.may_panic()
            }
            Expr::Map(e) | Expr::Call(_, e) | Expr::Method(_, _, e) | Expr::Receive(_, e) => {
                e.may_panic()
            }
            Expr::Add(a, b) | Expr::Both(_, a, b) => a.may_panic() || b.may_panic(),
            Expr::List(list) | Expr::Append(_, list) => list.iter().any(Expr::may_panic),
            Expr::Literal(list) => list.iter().any(|(k, v)| k.may_panic() || v.may_panic()),
            Expr::Number(_) | Expr::X | Expr::Y | Expr::Field | Expr::Both2(..) => false,
        }
    }
}

/// What is assigned to.
enum Target {
    X,
    Y,
    Blank,
    Array(Expr),
    Slice(Expr),
    Map(Expr),
    NilMap(Expr),
    Null,
    NullField,
    Field,
    /// `*p(k)`: the pointer is that of x, or nil.
    Pointer(i64, bool),
    /// `s(k)[i]`: what is stored is lost.
    SliceOf(i64, Expr),
}

/// A target after the first phase.
enum Reached {
    X,
    Y,
    Field,
    Array(i64),
    Slice(i64),
    Map(i64),
    Lost(i64),
    Nowhere,
    Fails(Panic),
}

impl Target {
    fn text(&self) -> String {
        match self {
            Target::X => "x".into(),
            Target::Y => "y".into(),
            Target::Blank => "_".into(),
            Target::Array(i) => format!("array[{}]", i.text()),
            Target::Slice(i) => format!("slice[{}]", i.text()),
            Target::Map(i) => format!("table[{}]", i.text()),
            Target::NilMap(i) => format!("empty[{}]", i.text()),
            Target::Null => "*null".into(),
            Target::NullField => "nothing.n".into(),
            Target::Field => "full.n".into(),
            Target::Pointer(k, nil) => format!("*p({k}, {nil})"),
            Target::SliceOf(k, i) => format!("s({k})[{}]", i.text()),
        }
    }

    fn calls(&self, s: &mut State, made: &mut Made) -> Result<(), Panic> {
        match self {
            Target::Array(i) | Target::Slice(i) | Target::Map(i) | Target::NilMap(i) => {
                i.calls(s, made)
            }
            Target::SliceOf(k, i) => {
                s.trace.push(*k);
                i.calls(s, made)
            }
            Target::Pointer(k, _) => {
                s.trace.push(*k);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn reach(&self, s: &State, made: &mut Made) -> Result<Reached, Panic> {
        Ok(match self {
            Target::X => Reached::X,
            Target::Y => Reached::Y,
            Target::Field => Reached::Field,
            Target::Blank => Reached::Nowhere,
            Target::Array(i) => Reached::Array(i.rest(s, made)?),
            Target::Slice(i) => Reached::Slice(i.rest(s, made)?),
            Target::SliceOf(_, i) => Reached::Lost(i.rest(s, made)?),
            Target::Map(i) => Reached::Map(i.rest(s, made)?),
            Target::NilMap(i) => {
                i.rest(s, made)?;
                Reached::Fails(NIL_MAP)
            }
            Target::Null | Target::NullField | Target::Pointer(_, true) => Reached::Fails(NIL),
            Target::Pointer(_, false) => Reached::X,
        })
    }

    /// An index of an array that is a constant is checked by the compiler.
    fn may_panic(&self) -> bool {
        match self {
            Target::Array(i) | Target::Slice(i) | Target::SliceOf(_, i) | Target::Map(i) => {
                i.may_panic()
            }
            Target::NilMap(i) => i.may_panic(),
            _ => false,
        }
    }
}

impl Reached {
    fn store(&self, s: &mut State, value: i64) -> Result<(), Panic> {
        let place = |i: i64| usize::try_from(i).ok().filter(|i| *i < LEN as usize).ok_or(INDEX);
        match self {
            Reached::X => s.x = value,
            Reached::Y => s.y = value,
            Reached::Field => s.field = value,
            Reached::Nowhere => {}
            Reached::Array(i) => s.array[place(*i)?] = value,
            Reached::Slice(i) => s.slice[place(*i)?] = value,
            Reached::Map(i) => {
                s.map.insert(*i, value);
            }
            Reached::Lost(i) => {
                place(*i)?;
            }
            Reached::Fails(panic) => return Err(panic),
        }
        Ok(())
    }
}

enum Statement {
    Assign(Vec<(Target, Expr)>),
    /// `t += e`
    Op(Target, Expr),
    /// `t1, t2 = two(k, a, b)`
    Two(Target, Target, i64, Expr, Expr),
    /// `return a, b` with a deferred function that leaves k and adds to the first result.
    Return(Expr, Expr, i64),
    /// `defer f(k, a)`, then `defer f(l, b)`
    Defer(i64, Expr, i64, Expr),
    /// `switch tag { case a, b: case c: }`
    Switch(Expr, [Expr; 3]),
    /// A select whose first two cases send on full channels.
    Select([(i64, Expr); 2]),
    /// `for x, t = range s(k) { break }`
    Range(Target, i64),
}

struct Generator {
    random: Random,
    next: i64,
    /// Operations that may panic, so far in this statement: there is one at most, since Go leaves
    /// open which of several comes first.
    risks: usize,
}

impl Generator {
    fn number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn boxed(&mut self, depth: usize) -> Box<Expr> {
        Box::new(self.expr(depth))
    }

    fn list(&mut self, depth: usize) -> Vec<Expr> {
        (0..1 + self.random.below(3)).map(|_| self.expr(depth)).collect()
    }

    /// An index, at times one that is out of range.
    fn index(&mut self, depth: usize) -> Box<Expr> {
        if self.risks == 0 && self.random.below(6) == 0 {
            self.risks += 1;
            let k = self.number();
            return Box::new(Expr::Call(k, Box::new(Expr::Number(LEN + 1))));
        }
        let n = Expr::Number(self.random.below(LEN as usize) as i64);
        match depth {
            0 => Box::new(n),
            _ => {
                let k = self.number();
                Box::new(Expr::Call(k, Box::new(n)))
            }
        }
    }

    fn expr(&mut self, depth: usize) -> Expr {
        if depth == 0 {
            return match self.random.below(6) {
                0 => Expr::X,
                1 => Expr::Y,
                2 => Expr::Field,
                3 => Expr::Array(Box::new(Expr::Number(self.random.below(4) as i64))),
                _ => Expr::Number(self.random.below(20) as i64),
            };
        }
        let d = depth - 1;
        match self.random.below(18) {
            0..=3 => Expr::Call(self.number(), self.boxed(d)),
            4 => Expr::Both(self.number(), self.boxed(d), self.boxed(d)),
            5 => Expr::Method(self.number(), self.number(), self.boxed(d)),
            6 => Expr::Receive(self.number(), self.boxed(d)),
            7 => Expr::Add(self.boxed(d), self.boxed(d)),
            8 if self.risks == 0 => {
                self.risks += 1;
                let (a, k) = (self.boxed(d), self.number());
                let zero = self.random.below(2) as i64;
                Expr::Divide(a, Box::new(Expr::Call(k, Box::new(Expr::Number(zero)))))
            }
            9 => Expr::Array(self.index(d)),
            10 => Expr::Slice(self.index(d)),
            11 => Expr::Map(self.boxed(d)),
            12 if self.risks == 0 => {
                self.risks += 1;
                if self.random.below(2) == 0 { Expr::Null } else { Expr::NullField }
            }
            13 => Expr::SliceOf(self.number(), self.index(d)),
            14 => {
                let (k, l) = (self.number(), self.number());
                let [a, b, and] = [(); 3].map(|()| self.random.below(2) == 0);
                Expr::Both2(k, a, l, b, and)
            }
            15 => Expr::List(self.list(d)),
            16 => {
                let entries = 1 + self.random.below(3);
                // A call each: equal constants would be refused.
                let entries = (0..entries).map(|_| {
                    let k = self.number();
                    (Expr::Call(k, self.boxed(d)), self.expr(d))
                });
                Expr::Literal(entries.collect())
            }
            17 => Expr::Append(self.number(), self.list(d)),
            _ => Expr::Number(7),
        }
    }

    fn target(&mut self, depth: usize) -> Target {
        match self.random.below(12) {
            0 => Target::X,
            1 => Target::Y,
            2 => Target::Blank,
            3 => Target::Array(*self.index(depth)),
            4 => Target::Slice(*self.index(depth)),
            5 => {
                // A key that panics may do so before or behind other stores.
                let before = std::mem::replace(&mut self.risks, 1);
                let key = self.expr(depth);
                self.risks = before;
                Target::Map(key)
            }
            // Go's compiler finds a nil map before the operands on the right are evaluated.
            6 if self.risks == 0 => {
                self.risks += 1;
                Target::NilMap(self.expr(0))
            }
            6 => Target::Blank,
            7 => Target::Null,
            8 => Target::NullField,
            9 => Target::Field,
            10 => Target::Pointer(self.number(), self.random.below(3) == 0),
            _ => Target::SliceOf(self.number(), *self.index(depth)),
        }
    }

    /// A target that can be read and is there.
    fn variable(&mut self) -> Target {
        match self.random.below(5) {
            0 => Target::X,
            1 => Target::Y,
            2 => Target::Field,
            3 => Target::Map(self.expr(1)),
            _ => Target::Pointer(self.number(), false),
        }
    }

    fn statement(&mut self) -> Statement {
        self.risks = 0;
        match self.random.below(12) {
            0..=3 => {
                let n = 1 + self.random.below(3);
                Statement::Assign((0..n).map(|_| (self.target(1), self.expr(2))).collect())
            }
            4 => Statement::Op(self.variable(), self.expr(2)),
            5 => {
                let (a, b) = (self.target(1), self.target(1));
                Statement::Two(a, b, self.number(), self.expr(1), self.expr(1))
            }
            6 => Statement::Return(self.expr(2), self.expr(2), self.number()),
            7 => Statement::Defer(self.number(), self.expr(2), self.number(), self.expr(2)),
            8 => {
                let tag = self.expr(2);
                // A call each: equal constants would be refused.
                Statement::Switch(tag, [(); 3].map(|()| Expr::Call(self.number(), self.boxed(1))))
            }
            9 => Statement::Select([(); 2].map(|()| (self.number(), self.expr(2)))),
            _ => Statement::Range(self.target(1), self.number()),
        }
    }
}

impl Statement {
    fn text(&self) -> String {
        match self {
            Statement::Assign(pairs) => {
                let left: Vec<String> = pairs.iter().map(|(t, _)| t.text()).collect();
                let right: Vec<String> = pairs.iter().map(|(_, e)| e.text()).collect();
                format!("{} = {}", left.join(", "), right.join(", "))
            }
            Statement::Op(t, e) => format!("{} += {}", t.text(), e.text()),
            Statement::Two(a, b, k, x, y) => {
                format!("{}, {} = two({k}, {}, {})", a.text(), b.text(), x.text(), y.text())
            }
            Statement::Return(a, b, k) => format!(
                "x, y = func() (r, q int) {{\n\t\tdefer func() {{ r += f({k}, q) }}()\n\
                 \t\treturn {}, {}\n\t}}()",
                a.text(),
                b.text()
            ),
            Statement::Defer(k, a, l, b) => {
                format!("defer f({k}, {})\n\tdefer f({l}, {})", a.text(), b.text())
            }
            Statement::Switch(tag, [a, b, c]) => format!(
                "switch t := {}; t {{\n\tcase {}, {}:\n\t\tx = 1\n\tcase {}:\n\t\tx = 2\n\
                 \tdefault:\n\t\tx = 3\n\t}}",
                tag.text(),
                a.text(),
                b.text(),
                c.text()
            ),
            Statement::Select([(k, a), (l, b)]) => format!(
                "select {{\n\tcase never({k}) <- {}:\n\tcase never({l}) <- {}:\n\
                 \tdefault:\n\t\tx = 4\n\t}}",
                a.text(),
                b.text()
            ),
            Statement::Range(t, k) => {
                format!("for y, {} = range s({k}) {{\n\t\tbreak\n\t}}", t.text())
            }
        }
    }

    fn run(&self, s: &mut State) -> Result<(), Panic> {
        let mut made = Made::default();
        match self {
            Statement::Assign(pairs) => {
                pairs.iter().try_for_each(|(t, _)| t.calls(s, &mut made))?;
                let mut right = vec![];
                for (_, e) in pairs {
                    let mut own = Made::default();
                    e.calls(s, &mut own)?;
                    right.push(own);
                }
                // What no store before can change is evaluated where it is stored.
                let (mut stores, mut written) = (vec![], false);
                for ((t, e), mut own) in pairs.iter().zip(right) {
                    let reached = t.reach(s, &mut made)?;
                    let early = written && e.reads_variables();
                    let value = if early { Some(e.rest(s, &mut own)?) } else { None };
                    stores.push((reached, value, e, own));
                    written |= !matches!(t, Target::Blank);
                }
                for (reached, value, e, mut own) in stores {
                    let value = match value {
                        Some(value) => value,
                        None => e.rest(s, &mut own)?,
                    };
                    reached.store(s, value)?;
                }
            }
            Statement::Op(t, e) => {
                t.calls(s, &mut made)?;
                let mut right = Made::default();
                e.calls(s, &mut right)?;
                let reached = t.reach(s, &mut made)?;
                let old = match &reached {
                    Reached::X => s.x,
                    Reached::Y => s.y,
                    Reached::Field => s.field,
                    Reached::Map(i) => s.map.get(i).copied().unwrap_or(0),
                    _ => unreachable!("a variable"),
                };
                let v = e.rest(s, &mut right)?;
                reached.store(s, old.wrapping_add(v))?;
            }
            Statement::Two(a, b, k, x, y) => {
                a.calls(s, &mut made)?;
                b.calls(s, &mut made)?;
                let mut right = Made::default();
                x.calls(s, &mut right)?;
                y.calls(s, &mut right)?;
                let values = [x.rest(s, &mut right)?, y.rest(s, &mut right)?];
                s.trace.push(*k);
                let reached = [a.reach(s, &mut made)?, b.reach(s, &mut made)?];
                for (r, v) in reached.iter().zip(values) {
                    r.store(s, v)?;
                }
            }
            Statement::Return(a, b, k) => {
                let values = (|| {
                    a.calls(s, &mut made)?;
                    b.calls(s, &mut made)?;
                    Ok([a.rest(s, &mut made)?, b.rest(s, &mut made)?])
                })();
                s.trace.push(*k);
                let [a, b] = values?;
                (s.x, s.y) = (a.wrapping_add(b), b);
            }
            Statement::Defer(k, a, l, b) => {
                let mut deferred = vec![];
                let all = [(k, a), (l, b)].into_iter().try_for_each(|(k, e)| {
                    e.whole(s)?;
                    deferred.push(*k);
                    Ok(())
                });
                deferred.reverse();
                s.trace.extend(deferred);
                all?;
            }
            Statement::Switch(tag, [a, b, c]) => {
                let tag = tag.whole(s)?;
                s.x = if a.whole(s)? == tag || b.whole(s)? == tag {
                    1
                } else if c.whole(s)? == tag {
                    2
                } else {
                    3
                };
            }
            Statement::Select(cases) => {
                for (k, e) in cases {
                    s.trace.push(*k);
                    e.whole(s)?;
                }
                s.x = 4;
            }
            Statement::Range(t, k) => {
                s.trace.push(*k);
                t.calls(s, &mut made)?;
                let reached = t.reach(s, &mut made)?;
                s.y = 0;
                reached.store(s, 0)?;
            }
        }
        Ok(())
    }

    /// Whether Go says what happens: not where two operations may panic.
    fn is_certain(&self) -> bool {
        let Statement::Assign(pairs) = self else { return true };
        let risks = pairs.iter().filter(|(t, e)| t.may_panic() || e.may_panic()).count();
        // Go's compiler makes a map's element before it evaluates what is left of the right side.
        let map = |t: &Target| matches!(t, Target::Map(_) | Target::NilMap(_));
        risks <= usize::from(!pairs.iter().any(|(t, _)| map(t)))
    }
}

const PRELUDE: &str = r#"package main

import "fmt"

type holder struct{ n int }

var (
	trace   []int
	x, y    int
	array   [4]int
	slice   []int
	table   map[int]int
	empty   map[int]int
	null    *int
	nothing *holder
	full    *holder
)

func leave(k int) { trace = append(trace, k) }

func f(k, v int) int       { leave(k); return v }
func g(k, a, b int) int    { leave(k); return a }
func b(k int, v bool) bool { leave(k); return v }
func s(k int) []int        { leave(k); return []int{0, 10, 20, 30} }
func sum(list []int) int {
	n := 0
	for _, v := range list {
		n += v
	}
	return n
}
func when(v bool) int {
	if v {
		return 1
	}
	return 0
}
func two(k, v, w int) (int, int) { leave(k); return v, w }
func p(k int, null bool) *int {
	leave(k)
	if null {
		return nil
	}
	return &x
}
func c(k, v int) chan int {
	leave(k)
	ch := make(chan int, 1)
	ch <- v
	return ch
}
func never(k int) chan int { leave(k); return nil }

type object struct{}

func o(k int) object                { leave(k); return object{} }
func (object) m(k, v int) int       { leave(k); return v }

func reset() {
	trace, x, y = nil, 1, 2
	array, slice = [4]int{3, 4, 5, 6}, []int{7, 8, 9, 10}
	table, full = map[int]int{1: 11}, &holder{12}
}

func run(i int, f func()) {
	reset()
	defer func() {
		what := ""
		if r := recover(); r != nil {
			what = r.(error).Error()
		}
		fmt.Println(i, trace, x, y, array, slice, table, full.n, what)
	}()
	f()
}

"#;

/// A program and what it prints.
fn program(seed: u64) -> (String, String) {
    let mut g = Generator { random: Random(seed * 7919 + 1), next: 0, risks: 0 };
    let (mut source, mut expected) = (PRELUDE.to_owned(), String::new());
    let mut main = String::from("func main() {\n");
    for i in 0..STATEMENTS {
        g.next = 0;
        let statement = std::iter::repeat_with(|| g.statement())
            .find(Statement::is_certain)
            .expect("without end");
        writeln!(source, "func t{i}() {{\n\t{}\n}}\n", statement.text()).unwrap();
        writeln!(main, "\trun({i}, t{i})").unwrap();
        let mut s = State {
            trace: vec![],
            x: 1,
            y: 2,
            array: [3, 4, 5, 6],
            slice: [7, 8, 9, 10],
            map: [(1, 11)].into(),
            field: 12,
        };
        let what = statement.run(&mut s).err();
        let list = |l: &[i64]| {
            let l: Vec<String> = l.iter().map(i64::to_string).collect();
            format!("[{}]", l.join(" "))
        };
        let map: Vec<String> = s.map.iter().map(|(k, v)| format!("{k}:{v}")).collect();
        let what = match what {
            None => String::new(),
            Some(NIL) => {
                "runtime error: invalid memory address or nil pointer dereference".to_owned()
            }
            Some(INDEX) => "runtime error: index out of range [5] with length 4".to_owned(),
            Some(DIVIDE) => "runtime error: integer divide by zero".to_owned(),
            Some(_) => "assignment to entry in nil map".to_owned(),
        };
        writeln!(
            expected,
            "{i} {} {} {} {} {} map[{}] {} {what}",
            list(&s.trace),
            s.x,
            s.y,
            list(&s.array),
            list(&s.slice),
            map.join(" "),
            s.field
        )
        .unwrap();
    }
    (source + &main + "}\n", expected)
}

fn written(seed: u64, text: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("order_{seed}.go"));
    fs::write(&file, text).unwrap();
    file
}

fn programs() -> u64 {
    std::env::var("STACKMARK_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(PROGRAMS)
}

#[test]
fn random_statements_are_evaluated_in_gos_order() {
    for seed in 0..programs() {
        let (text, expected) = program(seed);
        let file = written(seed, &text);
        minigo(&[], &file).expect(0, &expected);
        if seed == 0 {
            let list = "poison,verify,move-every-poll,collect-every-poll";
            minigo(&["--stress", list], &file).expect(0, &expected);
        }
    }
}

/// Where real Go is installed, the generator is right about it.
#[test]
fn real_go_prints_what_the_generator_expects() {
    if Command::new("go").arg("version").output().is_err() {
        println!("skipped: there is no Go");
        return;
    }
    for seed in 0..programs() {
        let (text, expected) = program(seed);
        let file = written(seed, &text);
        let out = Command::new("go")
            .env("GO111MODULE", "off")
            .args(["run", "-gcflags=-lang=go1.19"])
            .arg(&file)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&out.stdout);
        if printed != expected {
            let differs = printed.lines().zip(expected.lines()).find(|(a, b)| a != b);
            panic!("{}: {differs:#?}\n{}", file.display(), String::from_utf8_lossy(&out.stderr));
        }
    }
}

//! Expressions: values, calls and operators, by precedence.

use super::{Parsed, Parser};
use crate::ast::{Call, Expression, ExpressionKind, Literal, Name, Operator};
use crate::ir::{Arithmetic, Comparison};
use crate::lex::{Kind, Symbol};

/// Operators in one expression; more would only make the compiler's own stack deeper.
const OPERATORS_MAX: usize = 64;

/// How tightly an operator binds, from `or` on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    And,
    Compare,
    Sum,
    Product,
}

impl Parser<'_, '_, '_> {
    pub(super) fn expression(&mut self) -> Parsed<Expression> {
        self.operators = 0;
        self.part()
    }

    /// An expression inside another one.
    fn part(&mut self) -> Parsed<Expression> {
        self.binary(Level::Or)
    }

    fn binary(&mut self, level: Level) -> Parsed<Expression> {
        let mut left = self.tighter(level)?;
        while let Some(operator) = self.operator(level) {
            let place = self.span();
            self.next();
            self.count_operator()?;
            let right = self.tighter(level)?;
            let span = left.span.start..right.span.end;
            let compared = |side: &Expression| {
                matches!(side.kind, ExpressionKind::Binary { operator: Operator::Compare(_), .. })
                    && self.text.get(side.span.clone()).is_some_and(|text| !text.starts_with('('))
            };
            if level == Level::Compare && compared(&left) {
                self.sink
                    .error(&place, "comparisons do not chain", "the second one")
                    .help("write `a < b and b < c`");
            }
            left = Expression {
                span,
                kind: ExpressionKind::Binary { operator, left: Box::new(left), right: Box::new(right) },
            };
        }
        Ok(left)
    }

    /// An operand of an operator of this level.
    fn tighter(&mut self, level: Level) -> Parsed<Expression> {
        match level {
            Level::Or => self.binary(Level::And),
            Level::And => self.not(),
            Level::Compare => self.binary(Level::Sum),
            Level::Sum => self.binary(Level::Product),
            Level::Product => self.negation(),
        }
    }

    fn operator(&self, level: Level) -> Option<Operator> {
        let (found, operator) = match self.peek() {
            Kind::Name(word) if word == "or" => (Level::Or, Operator::Or),
            Kind::Name(word) if word == "and" => (Level::And, Operator::And),
            Kind::Symbol(symbol) => match symbol {
                Symbol::Same => (Level::Compare, Operator::Compare(Comparison::Equal)),
                Symbol::Differs => (Level::Compare, Operator::Compare(Comparison::NotEqual)),
                Symbol::Less => (Level::Compare, Operator::Compare(Comparison::Less)),
                Symbol::AtMost => (Level::Compare, Operator::Compare(Comparison::LessEqual)),
                Symbol::Greater => (Level::Compare, Operator::Compare(Comparison::Greater)),
                Symbol::AtLeast => (Level::Compare, Operator::Compare(Comparison::GreaterEqual)),
                Symbol::Plus => (Level::Sum, Operator::Arithmetic(Arithmetic::Add)),
                Symbol::Minus => (Level::Sum, Operator::Arithmetic(Arithmetic::Subtract)),
                Symbol::Star => (Level::Product, Operator::Arithmetic(Arithmetic::Multiply)),
                Symbol::Slash => (Level::Product, Operator::Arithmetic(Arithmetic::Divide)),
                Symbol::Percent => (Level::Product, Operator::Arithmetic(Arithmetic::Remainder)),
                _ => return None,
            },
            _ => return None,
        };
        (found == level).then_some(operator)
    }

    fn not(&mut self) -> Parsed<Expression> {
        let start = self.span().start;
        if !self.eat_word("not") {
            return self.binary(Level::Compare);
        }
        self.count_operator()?;
        let inner = self.deeper(Parser::not)?;
        let span = start..inner.span.end;
        Ok(Expression { span, kind: ExpressionKind::Not(Box::new(inner)) })
    }

    fn negation(&mut self) -> Parsed<Expression> {
        let start = self.span().start;
        let number = matches!(self.peek_at(1), Kind::Number(_) | Kind::Float(_));
        if number || !self.eat_symbol(Symbol::Minus) {
            return self.primary();
        }
        self.count_operator()?;
        let inner = self.deeper(Parser::negation)?;
        let span = start..inner.span.end;
        Ok(Expression { span, kind: ExpressionKind::Negate(Box::new(inner)) })
    }

    fn count_operator(&mut self) -> Parsed<()> {
        self.operators += 1;
        if self.operators <= OPERATORS_MAX {
            return Ok(());
        }
        let span = self.last_span();
        let message = format!("more than {OPERATORS_MAX} operators in one expression");
        self.sink.error(&span, message, "too long").help("assign parts to variables");
        Err(super::Failed)
    }

    fn primary(&mut self) -> Parsed<Expression> {
        let span = self.span();
        match self.peek().clone() {
            Kind::Name(name) if self.is_symbol(1, Symbol::Open) => {
                let name = Name { text: name, span: span.clone() };
                self.next();
                let call = self.deeper(|parser| parser.call_of(name))?;
                Ok(Expression { span: call.span.clone(), kind: ExpressionKind::Call(call) })
            }
            Kind::Symbol(Symbol::Open) => {
                self.next();
                let inner = self.deeper(Parser::part)?;
                let end = self.expect(Symbol::Close, "to end what `(` began")?.end;
                Ok(Expression { span: span.start..end, kind: inner.kind })
            }
            _ => {
                if let Some(literal) = self.literal()? {
                    let span = span.start..self.last_span().end;
                    return Ok(Expression { span, kind: ExpressionKind::Literal(literal) });
                }
                if let Kind::Name(name) = self.peek().clone() {
                    self.next();
                    return Ok(Expression { span, kind: ExpressionKind::Name(name) });
                }
                Err(self.unexpected_with("a value", "here", |diagnostic| {
                    diagnostic.help(
                        "values are names, numbers, 'text', true, false, get(rpc, 'field'), get(table, key)",
                    );
                }))
            }
        }
    }

    /// A literal, if the next token starts one.
    pub(super) fn literal(&mut self) -> Parsed<Option<Literal>> {
        let literal = match self.peek().clone() {
            Kind::Name(name) if name == "true" => Literal::Bool(true),
            Kind::Name(name) if name == "false" => Literal::Bool(false),
            Kind::Number(magnitude) => Literal::Number { negative: false, magnitude },
            Kind::Float(bits) => Literal::Float(bits),
            Kind::Duration(ns) => Literal::Duration(ns),
            Kind::Percent(ppm) => Literal::Percent(ppm),
            Kind::Rate(rate) => Literal::Rate(rate),
            Kind::Text(text) => Literal::Text(text),
            Kind::Symbol(Symbol::Minus) => {
                self.next();
                match *self.peek() {
                    Kind::Number(magnitude) => Literal::Number { negative: true, magnitude },
                    Kind::Float(bits) => Literal::Float((-f64::from_bits(bits)).to_bits()),
                    _ => return Err(self.unexpected("a number", "after `-`")),
                }
            }
            _ => return Ok(None),
        };
        self.next();
        Ok(Some(literal))
    }

    pub(super) fn call(&mut self, what: &str, purpose: &str) -> Parsed<Call> {
        self.operators = 0;
        let name = self.name(what, purpose)?;
        self.call_of(name)
    }

    /// The arguments of the call whose name has been read.
    fn call_of(&mut self, name: Name) -> Parsed<Call> {
        self.expect(Symbol::Open, &format!("after `{}`", name.text))?;
        let (mut arguments, mut named) = (Vec::new(), Vec::<(Name, Expression)>::new());
        while !self.is_symbol(0, Symbol::Close) {
            if self.is_symbol(1, Symbol::Equals) {
                let argument = self.name("a name", "before `=`")?;
                self.next();
                let value = self.part()?;
                if let Some((first, _)) = named.iter().find(|(known, _)| known.text == argument.text) {
                    let message = format!("`{}` is given twice", argument.text);
                    self.sink
                        .error(&argument.span, message, "the second one")
                        .related(&first.span, "the first one");
                }
                named.push((argument, value));
            } else {
                let argument = self.part()?;
                if !named.is_empty() {
                    self.sink
                        .error(
                            &argument.span,
                            "an argument without a name comes too late",
                            "behind a named one",
                        )
                        .help("write the arguments without names first");
                }
                arguments.push(argument);
            }
            if !self.eat_symbol(Symbol::Comma) {
                break;
            }
        }
        let close = self.expect(Symbol::Close, &format!("to end the arguments of `{}`", name.text))?;
        let span = name.span.start..close.end;
        Ok(Call { name, arguments, named, span })
    }
}

//! How long credentials may live. Every rule only shortens, and the result names the rule that
//! decided.

use std::fmt;

use crate::domain::{Millis, Timestamp};

/// AWS accepts no shorter duration of a role's credentials, so a session policy ends them earlier.
const SHORTEST_AT_AWS: Millis = Millis::minutes(15);
/// AWS refuses more from a caller that has a role itself, as jit has on Lambda, EC2 and ECS.
const LONGEST_OF_A_CHAINED_ROLE: Millis = Millis::hours(1);
/// The duration without a configured one. An SDK asks again when credentials have 15 minutes left.
const USUAL: Millis = Millis::minutes(15);
/// AWS counts whole seconds.
const SECOND: i64 = 1000;

/// The rules about the length of credentials; absent if a rule does not apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// `sessions.credentials`, which takes the place of the usual duration.
    pub configured: Option<Millis>,
    /// `credentials` of the permission set.
    pub set: Option<Millis>,
    /// The rule of a policy.
    pub policy: Option<Millis>,
    /// The end of an emergency grant.
    pub emergency: Option<Timestamp>,
    /// The end of the grant.
    pub grant: Timestamp,
    /// The maximum of the role in IAM, if it is known.
    pub role: Option<Millis>,
}

/// A rule about the length of credentials, in the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cap {
    Usual,
    Configured,
    Set,
    Policy,
    Emergency,
    Grant,
    ChainedRole,
    Role,
}

/// The terms of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When the credentials stop to work.
    pub deadline: Timestamp,
    /// The duration that AWS is asked for; the deadline may come earlier.
    pub duration_seconds: u32,
    /// The rule that decided the deadline.
    pub cap: Cap,
}

impl Terms {
    /// The terms at this time; none if a rule leaves no whole second.
    pub fn of(caps: &Caps, now: Timestamp) -> Option<Self> {
        let left = |end: Timestamp| end - now;
        let steps = [
            (Cap::Set, caps.set),
            (Cap::Policy, caps.policy),
            (Cap::Emergency, caps.emergency.map(left)),
            (Cap::Grant, Some(left(caps.grant))),
            (Cap::ChainedRole, Some(LONGEST_OF_A_CHAINED_ROLE)),
            (Cap::Role, caps.role),
        ];
        let (mut span, mut cap) = match caps.configured {
            Some(configured) => (configured, Cap::Configured),
            None => (USUAL, Cap::Usual),
        };
        for (rule, limit) in steps {
            if let Some(limit) = limit.filter(|limit| *limit < span) {
                (span, cap) = (limit, rule);
            }
        }
        let seconds = span.0.div_euclid(SECOND);
        if seconds < 1 {
            return None;
        }
        let asked = seconds.max(SHORTEST_AT_AWS.0 / SECOND);
        Some(Self {
            deadline: now + Millis(seconds * SECOND),
            duration_seconds: u32::try_from(asked).unwrap_or(u32::MAX),
            cap,
        })
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usual => "the usual duration of 15 minutes",
            Self::Configured => "sessions.credentials",
            Self::Set => "the permission set",
            Self::Policy => "the policy",
            Self::Emergency => "the end of the emergency grant",
            Self::Grant => "the end of the grant",
            Self::ChainedRole => "the limit of AWS for a chained role",
            Self::Role => "the maximum of the role",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_800_000_000)
    }

    fn caps(set: Option<i64>, policy: Option<i64>, grant: i64) -> Caps {
        Caps {
            set: set.map(Millis::minutes),
            policy: policy.map(Millis::minutes),
            grant: now() + Millis::minutes(grant),
            ..Caps::default()
        }
    }

    #[test]
    fn the_shortest_rule_decides_and_is_named() {
        let of = |caps: Caps| {
            let terms = Terms::of(&caps, now()).unwrap();
            let minutes = (terms.deadline - now()).0 / 60_000;
            (minutes, terms.duration_seconds, terms.cap)
        };
        assert_eq!(of(caps(None, None, 600)), (15, 900, Cap::Usual));
        assert_eq!(of(caps(Some(15), Some(10), 5)), (5, 900, Cap::Grant));
        assert_eq!(of(caps(Some(10), Some(5), 600)), (5, 900, Cap::Policy));
        let long = Caps {
            configured: Some(Millis::hours(3)),
            ..caps(None, None, 600)
        };
        assert_eq!(of(long), (60, 3600, Cap::ChainedRole));
        let of_role = Caps {
            role: Some(Millis::minutes(30)),
            ..long
        };
        assert_eq!(of(of_role), (30, 1800, Cap::Role));
        let emergency = Caps {
            emergency: Some(now() + Millis::minutes(7)),
            ..long
        };
        assert_eq!(of(emergency), (7, 900, Cap::Emergency));
    }

    #[test]
    fn less_than_a_second_gives_no_credentials() {
        let ends_in = |millis: i64| Caps {
            grant: now() + Millis(millis),
            ..Caps::default()
        };
        for millis in [-60_000, 0, 999] {
            assert_eq!(Terms::of(&ends_in(millis), now()), None, "{millis}");
        }
        let terms = Terms::of(&ends_in(1999), now()).unwrap();
        assert_eq!(terms.deadline, now() + Millis::seconds(1));
        assert_eq!(terms.duration_seconds, 900);
    }

    fn some_millis() -> impl Strategy<Value = Option<Millis>> {
        proptest::option::of((1_000_i64..50_000_000).prop_map(Millis))
    }

    prop_compose! {
        fn some_caps()(
            (configured, set, policy, role) in (some_millis(), some_millis(), some_millis(), some_millis()),
            emergency in some_millis(),
            grant in 1_000_i64..50_000_000,
        ) -> Caps {
            Caps {
                configured,
                set,
                policy,
                emergency: emergency.map(|span| now() + span),
                grant: now() + Millis(grant),
                role,
            }
        }
    }

    proptest! {
        /// The result is the smallest of all rules, in whole seconds, and no rule lengthens it.
        #[test]
        fn the_terms_are_the_smallest_rule_and_a_further_rule_only_shortens(
            caps in some_caps(),
            further in 1_000_i64..50_000_000,
        ) {
            let terms = Terms::of(&caps, now()).unwrap();
            let rules = [
                Some(caps.configured.unwrap_or(USUAL)),
                caps.set,
                caps.policy,
                caps.emergency.map(|end| end - now()),
                Some(caps.grant - now()),
                Some(Millis::hours(1)),
                caps.role,
            ];
            let smallest = rules.into_iter().flatten().min().unwrap();
            let span = terms.deadline - now();
            prop_assert_eq!(span.0, smallest.0 / 1000 * 1000);
            let asked = i64::from(terms.duration_seconds) * 1000;
            prop_assert_eq!(asked, span.0.max(900_000));
            let narrowed = Caps {
                policy: Some(caps.policy.map_or(Millis(further), |one| one.min(Millis(further)))),
                ..caps
            };
            let narrowed = Terms::of(&narrowed, now()).unwrap();
            prop_assert!(narrowed.deadline <= terms.deadline);
        }
    }
}

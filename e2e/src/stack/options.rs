//! What can be chosen about a stack. Values are as the services' variables take them.
//!
//! Nothing is read from the environment here.

/// How a stack differs from the usual one.
#[derive(Debug, Clone)]
pub struct Options {
    /// Instances of each service.
    pub instances: usize,
    /// `PAY_WITHIN`
    pub pay_within: &'static str,
    /// `ASK_GATEWAY_AFTER`
    pub ask_gateway_after: &'static str,
    /// `TIMER_GRACE`
    pub timer_grace: &'static str,
    /// `GATEWAY_ADAPTER`
    pub gateway_adapter: &'static str,
    /// `EFFECT_DELAYS`
    pub effect_delays: &'static str,
    /// `host:port` of the broker and URL of Postgres' superuser, where they are not those of `cargo verify`.
    pub servers: Option<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            instances: 1,
            pay_within: "15m",
            ask_gateway_after: "2s",
            timer_grace: "5s",
            gateway_adapter: "http",
            effect_delays: "1s,2s,4s,8s,16s,32s,64s",
            servers: None,
        }
    }
}

//! What the macros print, as snapshots.

use proc_macro2::TokenStream;

use crate::{activity, contract, function, message, reject, state};

/// Compares what is printed with the snapshot `name`.
fn check(name: &str, printed: TokenStream) {
    let file = syn::parse2(printed).expect("what is printed is Rust");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, prettyplease::unparse(&file));
    });
}

fn tokens(source: &str) -> TokenStream {
    source.parse().expect("the test's own source is Rust")
}

#[test]
fn a_function_prints_one_impl_for_each_handler() {
    let arguments = r#"name = "bank/account", key = u64, sends(Self, shop::Clerk), emits(STATEMENTS)"#;
    let block = "
        impl Account {
            /// Stays.
            #[on]
            pub fn transfer(&mut self, msg: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> { self.take(msg.cents) }
            #[on(in_event_time_order)]
            fn sort(&mut self, entry: Entry) {}
            #[on]
            fn balance(&self, _: &GetBalance, ctx: &Context<Self>) -> u64 { self.balance_cents }
            #[on_timer]
            fn expired(&mut self, timer: Expired) -> Result<(), Fault> { Ok(()) }
            fn take(&mut self, cents: u64) -> Result<(), Overdrawn> { Ok(()) }
        }";
    check("function", function::function(tokens(arguments), tokens(block)));
}

#[test]
fn a_handler_of_replies_prints_its_impl() {
    let block = "
        impl Order {
            #[on_reply]
            fn reserved(&mut self, reply: Reply<Stock, Reserve>, ctx: &mut Context<Self>) {}
            #[on_reply]
            fn charged(&mut self, done: &Done<charge>) -> Result<(), Fault> { Ok(()) }
        }";
    check("function_replies", function::function(tokens(r#"name = "shop/order", sends(Stock)"#), tokens(block)));
}

#[test]
fn an_activity_prints_its_function_and_a_type() {
    let item = "/// Charges.\npub async fn charge(card: Card, ctx: ActivityContext) -> Result<u64, Declined> { Ok(1) }";
    let arguments = r#"name = "shop/charge", policy = Policy::new().attempts_max(3)"#;
    check("activity", activity::activity(tokens(arguments), tokens(item)));
}

#[test]
fn a_function_that_implements_a_contract_takes_name_and_key_from_it() {
    let block = "impl Account { #[on] fn deposit(&mut self, msg: &Deposit) {} }";
    check("function_implements", function::function(tokens("implements = bank_api::Account"), tokens(block)));
}

#[test]
fn a_faulty_handler_is_kept_in_the_block_and_printed_nowhere_else() {
    let block =
        "impl Account { #[on] async fn deposit(&mut self, msg: &Deposit) {} #[on] fn audit(&self, _: &Audit) {} }";
    check("function_faulty", function::function(tokens(r#"name = "account""#), tokens(block)));
}

#[test]
fn the_attribute_on_another_item_keeps_the_item() {
    check("function_on_struct", function::function(tokens(r#"name = "bank/account""#), tokens("struct Account {}")));
}

#[test]
fn a_contract_prints_its_messages_and_what_covers_it() {
    let input = r#"
        /// An account.
        pub Account = "bank/account", key = AccountId;
        Deposit;
        api::Transfer -> Result<(), Overdrawn>;
        GetBalance -> u64
    "#;
    check("contract", contract::contract(tokens(input)));
}

#[test]
fn a_message_prints_its_name_and_encoding() {
    let json = r#"#[message(name = "transfer")] struct Transfer { to: String }"#;
    let prost = r#"#[message(name = "transfer", prost)] struct Transfer { to: String }"#;
    check("message_json", message::message(tokens(json)));
    check("message_prost", message::message(tokens(prost)));
}

#[test]
fn a_rejection_prints_code_and_status() {
    let one = r#"#[reject(code = "overdrawn", status = 402)] struct Overdrawn { missing_cents: u64 }"#;
    let each = r#"
        #[reject(code = "refused", status = 422)]
        enum Refused { #[reject(code = "closed")] Closed, #[reject(status = 404)] Unknown(u64), Late { ms: u64 } }
    "#;
    check("reject_struct", reject::reject(tokens(one)));
    check("reject_enum", reject::reject(tokens(each)));
}

#[test]
fn a_state_prints_its_fields_as_they_are_encoded() {
    let state = r#"
        #[state(version = 3)]
        struct Account {
            balance_cents: u64,
            #[serde(default, rename = "holds")]
            open: Vec<(u64, String)>,
            #[serde(skip)]
            cache: Option<Box<dyn Fn(u64) -> u64 + Send>>,
            r#type: u8,
        }
    "#;
    check("state", state::state(tokens(state)));
    check("state_unit", state::state(tokens("struct Nothing;")));
    check("state_tuple", state::state(tokens("struct Pair(u64, String);")));
}

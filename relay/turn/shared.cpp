#include "radiotower/turn/shared.h"

#include <algorithm>
#include <cassert>

namespace radiotower::turn {

namespace {

constexpr std::int64_t second = 1'000'000'000;

/// Takes `amount` at `rate` a second out of a bucket that holds one second's worth and is whole at `whole_at` (GCRA).
bool take(std::atomic<std::int64_t>& whole_at, std::int64_t amount, std::uint64_t rate, std::int64_t now) {
  const auto cost = static_cast<std::int64_t>(static_cast<double>(amount) * 1e9 / static_cast<double>(rate));
  std::int64_t was = whole_at.load(std::memory_order_relaxed);
  for (;;) {
    const std::int64_t next = std::max(was, now) + cost;
    if (next > now + second && std::max(was, now) != now) return false;  // a whole bucket grants even what is larger than it
    if (next > now + second && cost <= second) return false;
    if (whole_at.compare_exchange_weak(was, next, std::memory_order_relaxed)) return true;
  }
}

/// A name of the users file and a REST user of the same name are two people, with two quotas; so are two of one name in two realms.
std::string account_key(bool rest, bool token, std::string_view name, std::string_view realm) {
  std::string key = token ? "token " : rest ? "rest " : "user ";
  key.append(std::to_string(realm.size())).append(" ").append(realm).append(name);
  return key;
}

}  // namespace

Account::Account(std::string name, BucketSource* buckets, std::string realm)
    : name_(std::move(name)), realm_(std::move(realm)), buckets_(buckets), bucket_([&] {
        Bucket* taken = buckets ? buckets->take() : nullptr;
        return taken ? taken : &own_;
      }()) {}

Account::~Account() {
  if (bucket_ != &own_) buckets_->give_back(bucket_);
}

void Account::set_rates(std::uint64_t bytes_per_second, std::uint64_t packets_per_second) {
  bucket_->byte_rate.store(bytes_per_second, std::memory_order_relaxed);
  bucket_->packet_rate.store(packets_per_second, std::memory_order_relaxed);
  limited_.store(bytes_per_second != 0 || packets_per_second != 0, std::memory_order_relaxed);
}

bool Account::lease(std::size_t need, Time now, Lease& lease) {
  const std::int64_t t = now.time_since_epoch().count();
  const std::uint64_t bytes = bucket_->byte_rate.load(std::memory_order_relaxed);
  const std::uint64_t packets = bucket_->packet_rate.load(std::memory_order_relaxed);
  const auto need_bytes = static_cast<std::int64_t>(need);
  if (lease.packets < 64) {
    if (packets == 0) {
      lease.packets = 1'000'000'000;
    } else {
      const std::int64_t chunk = std::max<std::int64_t>(static_cast<std::int64_t>(packets / 100), 1);
      if (take(bucket_->packets_full_at, chunk, packets, t)) lease.packets += chunk;
      else if (lease.packets < 1) return false;
    }
  }
  if (lease.bytes < need_bytes) {
    if (bytes == 0) {
      lease.bytes = 1'000'000'000'000;
    } else {
      const std::int64_t chunk = std::max(static_cast<std::int64_t>(bytes / 100), need_bytes);
      if (take(bucket_->bytes_full_at, chunk, bytes, t)) lease.bytes += chunk;
      else if (chunk > need_bytes && take(bucket_->bytes_full_at, need_bytes, bytes, t)) lease.bytes += need_bytes;
      else return false;
    }
  }
  return true;
}

Shared::Shared(const Settings& settings, const RandomSource& random, const HashKey& key, BucketSource* buckets)
    : book_(random), accounts_(16, Hash{key}), by_realm_(4, Hash{key}), random_(random), buckets_(buckets) {
  offer(settings);
}

std::vector<net::IpAddress> Shared::offer(const Settings& settings) {
  const std::lock_guard lock(mutex_);
  return book_.offer(settings.relay_addresses, settings.first_port, settings.last_port);
}

std::size_t Shared::ports_held(const net::IpAddress& local) const {
  const std::lock_guard lock(mutex_);
  return book_.held(local);
}

std::vector<net::IpAddress> Shared::known_addresses() const {
  const std::lock_guard lock(mutex_);
  return book_.known();
}

std::shared_ptr<Account> Shared::admit(std::string_view name, std::optional<std::uint32_t> own_allocations,
                                       std::optional<std::uint64_t> own_bytes_per_second, bool rest, const Limits& limits,
                                       std::uint32_t count, bool& over_total, std::string_view realm, std::uint32_t realm_allocations,
                                       bool token) {
  const std::lock_guard lock(mutex_);
  const auto of_realm = by_realm_.find(realm);
  over_total = (limits.allocations != 0 && allocations_ + count > limits.allocations) ||
               (realm_allocations != 0 && (of_realm == by_realm_.end() ? 0 : of_realm->second) + count > realm_allocations);
  if (over_total) return nullptr;
  const std::string key = account_key(rest, token, name, realm);
  auto found = accounts_.find(key);
  if (found == accounts_.end()) {
    if (count == 0) {  // holds nothing, so there is nothing to keep
      auto account = std::make_shared<Account>(std::string(name), nullptr, std::string(realm));
      account->token_ = token;
      return account;
    }
    // A name of the users file without a limit never gets one; a REST user may, with a reload.
    const bool may_be_limited = rest || own_bytes_per_second.has_value();
    auto account = std::make_shared<Account>(std::string(name), may_be_limited ? buckets_ : nullptr, std::string(realm));
    found = accounts_.emplace(key, std::move(account)).first;
    Account& fresh = *found->second;
    fresh.rest_ = rest;
    fresh.token_ = token;
    fresh.own_rates_ = own_bytes_per_second.has_value();
    if (fresh.own_rates_) fresh.set_rates(*own_bytes_per_second, 0);
    else if (rest) fresh.set_rates(limits.bytes_per_second_per_user, limits.packets_per_second_per_user);
  }
  Account& account = *found->second;
  account.allocations_limit_ = own_allocations ? *own_allocations : rest ? limits.allocations_per_user : 0;
  if (account.allocations_limit_ != 0 && account.allocations_ + count > account.allocations_limit_) {
    if (account.allocations_ == 0) accounts_.erase(found);
    return nullptr;
  }
  account.allocations_ += count;
  allocations_ += count;
  if (count != 0) (of_realm == by_realm_.end() ? by_realm_.emplace(std::string(realm), 0).first : of_realm)->second += count;
  return found->second;
}

void Shared::leave_locked(Account& account, std::uint32_t count) {
  assert(account.allocations_ >= count && allocations_ >= count);
  account.allocations_ -= count;
  allocations_ -= count;
  if (const auto of_realm = by_realm_.find(account.realm()); of_realm != by_realm_.end() && (of_realm->second -= count) == 0) by_realm_.erase(of_realm);
  if (account.allocations_ == 0) {
    const auto found = accounts_.find(account_key(account.rest_, account.token_, account.name(), account.realm()));
    if (found != accounts_.end() && found->second.get() == &account) accounts_.erase(found);
  }
}

void Shared::leave(const std::shared_ptr<Account>& account, std::uint32_t count) {
  const std::lock_guard lock(mutex_);
  leave_locked(*account, count);
}

std::optional<Shared::Port> Shared::take_port(net::Family family, const net::IpAddress& preferred, Want want,
                                              const std::shared_ptr<Account>& account, Time now) {
  const std::lock_guard lock(mutex_);
  expire_locked(now);
  const auto try_address = [&](const AddressBook::Offered& address) -> std::optional<Port> {
    PortPool& pool = book_.pool(address.place);
    const auto port = want == Want::any ? pool.take_any(now) : want == Want::even ? pool.take_even(now) : pool.take_pair(now);
    if (!port) return std::nullopt;
    Port taken{address.place, *port, {}};
    book_.tell(address.place, *port, address.form);
    if (want == Want::even_pair) {
      const auto next = static_cast<std::uint16_t>(*port + 1);
      random_(taken.token);
      book_.tell(address.place, next, address.form);
      reservations_.push_back({taken.token, {address.place, next, {}}, account, now + PortPool::reservation});
    }
    return taken;
  };
  // The address the client came in on first: it is known to reach us there.
  for (const bool first : {true, false}) {
    for (const auto& address : book_.offered()) {
      const net::IpAddress local = book_.local(address.place);
      if (local.family() != family || (local == preferred) != first) continue;
      if (auto port = try_address(address)) return port;
    }
  }
  return std::nullopt;
}

std::optional<Shared::Port> Shared::claim(Bytes token, const Account& account, Time now, std::shared_ptr<Account>* holder) {
  const std::lock_guard lock(mutex_);
  expire_locked(now);
  const auto found = std::find_if(reservations_.begin(), reservations_.end(), [&](const Reservation& r) {
    const bool bearers = holder && account.token_ && r.account->token_ && account.realm() == r.account->realm();
    return (r.account.get() == &account || bearers) && equal_in_constant_time(r.token, token);
  });
  if (found == reservations_.end()) return std::nullopt;
  const Port port = found->port;
  book_.pool(port.place).claim(port.port);
  if (holder) *holder = found->account;
  reservations_.erase(found);
  return port;
}

void Shared::set_live(const Port& port, bool live, net::Transport transport) { book_.set_live(port.place, port.port, live, transport); }

void Shared::release(const Port& port, Time now) {
  set_live(port, false);
  set_live(port, false, net::Transport::tcp);
  const std::lock_guard lock(mutex_);
  release_locked(port, now);
}

void Shared::release_locked(const Port& port, Time now) {
  book_.untell(port.place, port.port);
  book_.pool(port.place).release(port.port, now);
}

void Shared::expire_locked(Time now) {
  while (!reservations_.empty() && reservations_.front().until <= now) {
    const Reservation& r = reservations_.front();
    release_locked(r.port, now);
    leave_locked(*r.account, 1);
    reservations_.pop_front();
  }
}

void Shared::expire(Time now) {
  const std::lock_guard lock(mutex_);
  expire_locked(now);
}

void Shared::apply_limits(const Limits& limits, std::string_view realm) {
  const std::lock_guard lock(mutex_);
  for (auto& [name, account] : accounts_) {
    if (!account->rest_ || account->own_rates_ || account->realm() != realm) continue;
    account->set_rates(limits.bytes_per_second_per_user, limits.packets_per_second_per_user);
  }
}

bool Shared::has_family(net::Family family) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(book_.offered().begin(), book_.offered().end(), [&](const auto& a) { return book_.local(a.place).family() == family; });
}

std::optional<std::uint32_t> Shared::register_connection(unsigned worker) {
  constexpr std::size_t most = std::size_t{1} << 20;  // keeps the numbers sparse: few tries, and a guess hits nothing
  const std::lock_guard lock(mutex_);
  if (connections_.size() >= most) return std::nullopt;
  for (;;) {
    std::array<std::uint8_t, 4> bytes;
    random_(bytes);
    const std::uint32_t id = load_be32(bytes.data());
    if (id != 0 && connections_.emplace(id, worker).second) return id;
  }
}

std::optional<unsigned> Shared::worker_of(std::uint32_t connection) const {
  const std::lock_guard lock(mutex_);
  const auto found = connections_.find(connection);
  return found == connections_.end() ? std::nullopt : std::optional(found->second);
}

void Shared::forget_connection(std::uint32_t connection) {
  const std::lock_guard lock(mutex_);
  connections_.erase(connection);
}

Shared::Usage Shared::usage() const {
  const std::lock_guard lock(mutex_);
  Usage usage;
  for (std::uint32_t i = 0; i < book_.places(); ++i) {
    const PortPool& pool = book_.pool(i);
    usage.free += pool.free();
    usage.used += pool.used();
    usage.reserved += pool.reserved();
    usage.quarantined += pool.quarantined();
    usage.range += pool.range();
  }
  usage.accounts = accounts_.size();
  usage.allocations = allocations_;
  return usage;
}

}  // namespace radiotower::turn

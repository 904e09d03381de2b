#include "radiotower/turn/address_book.h"

#include <algorithm>

namespace radiotower::turn {

namespace {

constexpr std::uint32_t no_place = 0xFFFFFFFF;

}  // namespace

/// Where the address is or was; else a new place, or one that holds no port and is not wanted either. no_place: all are needed.
std::uint32_t AddressBook::place_for(const net::IpAddress& local, std::uint16_t first, std::uint16_t last,
                                     const std::vector<RelayAddress>& wanted) {
  const std::uint32_t made = places();
  for (std::uint32_t i = 0; i < made; ++i)
    if (locals_[i].get() == local) return i;
  if (made < most_addresses) {
    places_[made] = std::make_unique<Place>(first, last, random_);
    locals_[made].set(local);
    places_made_.store(made + 1, std::memory_order_release);
    return made;
  }
  for (std::uint32_t i = 0; i < made; ++i) {
    Place& place = *places_[i];
    if (place.pool.used() + place.pool.reserved() != 0) continue;
    const net::IpAddress ip = locals_[i].get();
    if (std::any_of(wanted.begin(), wanted.end(), [&](const RelayAddress& a) { return a.local == ip; })) continue;
    place.pool = PortPool(first, last, random_);  // another address: nothing rests on it
    locals_[i].set(local);
    return i;
  }
  return no_place;
}

/// 0: there is no room.
std::uint8_t AddressBook::form_for(const net::IpAddress& external, std::uint32_t place) {
  const std::uint32_t end = forms_end_.load(std::memory_order_relaxed);
  for (std::uint32_t i = 1; i < end; ++i)
    if (forms_[i].used && forms_[i].external.get() == external && forms_[i].place.load(std::memory_order_relaxed) == place) return static_cast<std::uint8_t>(i);
  for (std::uint32_t i = 1; i < forms_.size(); ++i) {
    Form& form = forms_[i];
    if (form.used) continue;
    form.used = true;
    form.ports = 0;
    form.place.store(place, std::memory_order_relaxed);
    form.external.set(external);
    if (i >= end) forms_end_.store(i + 1, std::memory_order_release);
    return static_cast<std::uint8_t>(i);
  }
  return 0;
}

std::vector<net::IpAddress> AddressBook::offer(const std::vector<RelayAddress>& addresses, std::uint16_t first, std::uint16_t last) {
  std::vector<net::IpAddress> no_room;
  std::vector<Offered> next;
  for (const RelayAddress& address : addresses) {
    const std::uint32_t place = place_for(address.local, first, last, addresses);
    if (place == no_place) {
      no_room.push_back(address.local);
      continue;
    }
    if (std::any_of(next.begin(), next.end(), [&](const Offered& o) { return o.place == place; })) continue;
    const bool is_mapped = address.external != address.local;
    const std::uint8_t form = is_mapped ? form_for(address.external, place) : std::uint8_t{0};
    if (is_mapped && form == 0) no_room.push_back(address.external);
    next.push_back({place, form});
  }
  for (std::uint32_t i = 0; i < places(); ++i) {
    const bool is_there = std::any_of(next.begin(), next.end(), [&](const Offered& o) { return o.place == i; });
    if (is_there) places_[i]->pool.set_range(first, last);
    else places_[i]->pool.set_range(1, 0);  // nothing
  }
  offered_ = std::move(next);
  drop_unused_forms();
  return no_room;
}

bool AddressBook::is_offered(std::uint8_t form) const {
  return std::any_of(offered_.begin(), offered_.end(), [&](const Offered& o) { return o.form == form; });
}

/// An external address that is no longer ours may be somebody else's tomorrow: it matches nothing once nobody here is known by it.
void AddressBook::drop_unused_forms() {
  bool any = false;
  for (std::uint32_t i = 1; i < forms_end_.load(std::memory_order_relaxed); ++i) {
    Form& form = forms_[i];
    if (form.used && form.ports == 0 && !is_offered(static_cast<std::uint8_t>(i))) {
      form.used = false;
      form.external.set({});
    }
    any = any || form.used;
  }
  maps_addresses_.store(any, std::memory_order_relaxed);
}

void AddressBook::tell(std::uint32_t place, std::uint16_t port, std::uint8_t form) {
  places_[place]->form[port].store(form, std::memory_order_relaxed);
  if (form != 0) ++forms_[form].ports;
}

void AddressBook::untell(std::uint32_t place, std::uint16_t port) {
  const std::uint8_t form = places_[place]->form[port].exchange(0, std::memory_order_relaxed);
  if (form != 0 && --forms_[form].ports == 0) drop_unused_forms();
}

std::size_t AddressBook::held(const net::IpAddress& local) const {
  for (std::uint32_t i = 0; i < places(); ++i)
    if (locals_[i].get() == local) return places_[i]->pool.used() + places_[i]->pool.reserved();
  return 0;
}

std::vector<net::IpAddress> AddressBook::known() const {
  std::vector<net::IpAddress> all;
  const auto add = [&](const net::IpAddress& ip) {
    if (std::find(all.begin(), all.end(), ip) == all.end()) all.push_back(ip);
  };
  for (std::uint32_t i = 0; i < places(); ++i) {
    const bool is_there = std::any_of(offered_.begin(), offered_.end(), [&](const Offered& o) { return o.place == i; });
    if (is_there || places_[i]->pool.used() + places_[i]->pool.reserved() != 0) add(local(i));
  }
  for (std::uint32_t i = 1; i < forms_end_.load(std::memory_order_relaxed); ++i)
    if (forms_[i].used) add(forms_[i].external.get());
  return all;
}

net::IpAddress AddressBook::told(std::uint32_t place, std::uint16_t port) const {
  const std::uint8_t form = places_[place]->form[port].load(std::memory_order_relaxed);
  return form == 0 ? local(place) : forms_[form].external.get();
}

void AddressBook::set_live(std::uint32_t place, std::uint16_t port, bool live, net::Transport transport) {
  auto& word = (transport == net::Transport::tcp ? places_[place]->tcp : places_[place]->udp)[port / 64];
  const std::uint64_t bit = std::uint64_t{1} << (port % 64);
  // Whoever sees the port live sees what its client was told, too.
  if (live) word.fetch_or(bit, std::memory_order_release);
  else word.fetch_and(~bit, std::memory_order_relaxed);
}

/// Is this the external form that the client of a live port was told?
bool AddressBook::is_told(std::uint32_t form, const net::TransportAddress& address, net::Transport transport) const {
  if (forms_[form].external.get() != address.ip) return false;
  const Place& place = *places_[forms_[form].place.load(std::memory_order_relaxed)];
  return place.has(address.port, transport) && place.form[address.port].load(std::memory_order_relaxed) == form;
}

std::optional<net::TransportAddress> AddressBook::reach(const net::TransportAddress& peer, net::Transport transport) const {
  for (std::uint32_t i = 0, made = places_made_.load(std::memory_order_acquire); i < made; ++i)
    if (local(i) == peer.ip && places_[i]->has(peer.port, transport)) return peer;
  if (!maps_addresses()) return std::nullopt;
  for (std::uint32_t i = 1, end = forms_end_.load(std::memory_order_acquire); i < end; ++i)
    if (is_told(i, peer, transport)) return net::TransportAddress{local(forms_[i].place.load(std::memory_order_relaxed)), peer.port, 0};
  return std::nullopt;
}

net::TransportAddress AddressBook::inside(const net::TransportAddress& peer) const {
  if (!maps_addresses()) return peer;
  for (std::uint32_t i = 1, end = forms_end_.load(std::memory_order_acquire); i < end; ++i)
    if (is_told(i, peer, net::Transport::udp) || is_told(i, peer, net::Transport::tcp))
      return {local(forms_[i].place.load(std::memory_order_relaxed)), peer.port, 0};
  return peer;
}

net::TransportAddress AddressBook::outside(const net::TransportAddress& source, net::Transport transport) const {
  if (!maps_addresses()) return source;
  for (std::uint32_t i = 0, made = places_made_.load(std::memory_order_acquire); i < made; ++i) {
    if (local(i) != source.ip || !places_[i]->has(source.port, transport)) continue;
    const std::uint8_t form = places_[i]->form[source.port].load(std::memory_order_relaxed);
    return form == 0 ? source : net::TransportAddress{forms_[form].external.get(), source.port, 0};
  }
  return source;
}

}  // namespace radiotower::turn

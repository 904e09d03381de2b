// The Offload that start() returns when libbpf is there.
#pragma once

#include <string>
#include <vector>

#include "flow_table.h"
#include "interfaces.h"
#include "program.h"
#include "radiotower/offload/offload.h"

namespace radiotower::offload {

class LiveOffload final : public Offload {
 public:
  LiveOffload(std::unique_ptr<Program> program, const std::vector<net::IpAddress>& addresses);

  /// The sentence why it cannot be; empty when it runs.
  std::string attach(const OffloadSettings& settings);

  const std::vector<Attached>& attached() const override { return attached_; }
  const std::vector<std::string>& notes() const override { return notes_; }
  FlowId add(const Flow& flow, Time until) override;
  void extend(FlowId flow, Time until) override { flows_.extend(flow, until); }
  Counts remove(FlowId flow) override;
  Counts counts(FlowId flow) const override { return flows_.counts(flow); }
  BucketSource& buckets() override { return buckets_; }
  void keep_alive(Time until) override { program_->keep_alive(until); }
  std::vector<Outcome> outcomes() const override;
  std::size_t flows() const override { return flows_.size(); }

  Program& program() { return *program_; }  // for tests and measurements

 private:
  bool is_ours(const net::IpAddress& address) const;

  std::unique_ptr<Program> program_;
  std::vector<net::IpAddress> addresses_;
  BucketPool buckets_;
  FlowTable flows_;
  std::vector<Link> links_;
  std::vector<Attached> attached_;
  std::vector<std::string> notes_;
};

}  // namespace radiotower::offload

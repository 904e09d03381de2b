// Two pion peer connections that may use relayed candidates only: one sends video and messages, the other counts the one and
// echoes the others. Prints what it measured as JSON; the judgement is pion.py's.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v3"
	"github.com/pion/webrtc/v3/pkg/media"
)

const (
	frameInterval = 40 * time.Millisecond
	frameBytes    = 4000 // four packets
	messageBytes  = 200
	window        = 20 // messages on their way at a time
)

type result struct {
	Pairs      []string `json:"pairs"`
	Transports []string `json:"transports"`
	Echoed     int      `json:"echoed"`
	Altered    int      `json:"altered"`
	Sent       int      `json:"frames_sent"`
	Received   int      `json:"frames_received"`
	Packets    int      `json:"packets_received"`
	Lost       int      `json:"packets_lost"`
	Error      string   `json:"error,omitempty"`
}

// video counts a stream's packets by their sequence numbers. No interceptor runs, so nothing is sent again and no loss is hidden.
type video struct {
	sync.Mutex
	seen        map[uint16]bool // fewer than 2^16 packets come
	first, last uint16
	frames      int
}

func (v *video) read(track *webrtc.TrackRemote) {
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		v.Lock()
		number := packet.SequenceNumber
		if len(v.seen) == 0 {
			v.first, v.last = number, number
		}
		if int16(number-v.last) > 0 {
			v.last = number
		}
		if int16(number-v.first) < 0 && len(v.seen) < 100 {
			v.first = number
		}
		if packet.Marker && !v.seen[number] {
			v.frames++
		}
		v.seen[number] = true
		v.Unlock()
	}
}

func (v *video) count(r *result) {
	v.Lock()
	defer v.Unlock()
	r.Received, r.Packets = v.frames, len(v.seen)
	if len(v.seen) > 0 {
		r.Lost = int(v.last-v.first) + 1 - len(v.seen)
	}
}

func newAPI() (*webrtc.API, error) {
	var codecs webrtc.MediaEngine
	if err := codecs.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	var settings webrtc.SettingEngine
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled) // nothing leaves loopback
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	return webrtc.NewAPI(webrtc.WithMediaEngine(&codecs), webrtc.WithSettingEngine(settings),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{})), nil
}

// signal exchanges descriptions that carry all candidates, so that no order of messages matters.
func signal(caller, callee *webrtc.PeerConnection) error {
	offer, err := caller.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(caller)
	if err = caller.SetLocalDescription(offer); err != nil {
		return err
	}
	<-gathered
	if err = callee.SetRemoteDescription(*caller.LocalDescription()); err != nil {
		return err
	}
	answer, err := callee.CreateAnswer(nil)
	if err != nil {
		return err
	}
	gathered = webrtc.GatheringCompletePromise(callee)
	if err = callee.SetLocalDescription(answer); err != nil {
		return err
	}
	<-gathered
	return caller.SetRemoteDescription(*callee.LocalDescription())
}

// connected fires once, when the connection stands or when it has failed.
func connected(pc *webrtc.PeerConnection) <-chan error {
	done := make(chan error, 1)
	var once sync.Once
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			once.Do(func() { done <- nil })
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			once.Do(func() { done <- errors.New("connection " + state.String()) })
		}
	})
	return done
}

func selectedPair(pc *webrtc.PeerConnection) (string, error) {
	pair, err := pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil {
		return "", err
	}
	if pair == nil {
		return "", errors.New("no selected pair")
	}
	return pair.Local.Typ.String() + "/" + pair.Remote.Typ.String(), nil
}

// transport is what the end has to the relay: udp, tcp or tls.
func transport(pc *webrtc.PeerConnection) string {
	for _, stats := range pc.GetStats() {
		if candidate, ok := stats.(webrtc.ICECandidateStats); ok && candidate.Type == webrtc.StatsTypeLocalCandidate {
			return candidate.RelayProtocol
		}
	}
	return ""
}

// echo sends `messages` messages and calls `done` with the last answer.
func echo(channel *webrtc.DataChannel, messages int, r *result, lock *sync.Mutex, done func()) {
	text := func(number int) string { return fmt.Sprintf("%-*d", messageBytes, number) }
	sent := 0
	send := func() {
		if sent < messages {
			sent++
			_ = channel.SendText(text(sent - 1)) // a message that was not sent is one that was not echoed
		}
	}
	channel.OnMessage(func(m webrtc.DataChannelMessage) {
		lock.Lock()
		defer lock.Unlock()
		if string(m.Data) != text(r.Echoed) {
			r.Altered++
		}
		r.Echoed++
		send()
		if r.Echoed == messages {
			done()
		}
	})
	channel.OnOpen(func() {
		lock.Lock()
		defer lock.Unlock()
		for i := 0; i < window; i++ {
			send()
		}
	})
}

func call(config webrtc.Configuration, messages int, length, timeout time.Duration, r *result) error {
	api, err := newAPI()
	if err != nil {
		return err
	}
	var ends [2]*webrtc.PeerConnection
	for i := range ends {
		if ends[i], err = api.NewPeerConnection(config); err != nil {
			return err
		}
		defer ends[i].Close()
	}
	caller, callee := ends[0], ends[1]
	stands := [2]<-chan error{connected(caller), connected(callee)}

	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "interop")
	if err != nil {
		return err
	}
	if _, err = caller.AddTrack(track); err != nil {
		return err
	}
	incoming := video{seen: map[uint16]bool{}}
	callee.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { incoming.read(track) })

	channel, err := caller.CreateDataChannel("echo", nil)
	if err != nil {
		return err
	}
	callee.OnDataChannel(func(c *webrtc.DataChannel) {
		c.OnMessage(func(m webrtc.DataChannelMessage) { _ = c.SendText(string(m.Data)) })
	})
	var lock sync.Mutex
	echoed := make(chan struct{})
	echo(channel, messages, r, &lock, func() { close(echoed) })

	late := time.After(timeout)
	if err = signal(caller, callee); err != nil {
		return err
	}
	for _, stand := range stands {
		select {
		case err = <-stand:
			if err != nil {
				return err
			}
		case <-late:
			return errors.New("not connected in time")
		}
	}
	for _, end := range ends {
		pair, err := selectedPair(end)
		if err != nil {
			return err
		}
		r.Pairs = append(r.Pairs, pair)
		r.Transports = append(r.Transports, transport(end))
	}

	frame := make([]byte, frameBytes)
	ticker := time.NewTicker(frameInterval)
	defer ticker.Stop()
	for began := time.Now(); time.Since(began) < length; r.Sent++ {
		<-ticker.C
		if err = track.WriteSample(media.Sample{Data: frame, Duration: frameInterval}); err != nil {
			return err
		}
	}
	select {
	case <-echoed:
	case <-late:
	}
	time.Sleep(300 * time.Millisecond) // the last packets are on their way
	lock.Lock()
	defer lock.Unlock()
	incoming.count(r)
	return nil
}

func main() {
	url := flag.String("url", "", "turn:ADDRESS:PORT?transport=udp, or tcp, or turns:")
	username := flag.String("username", "", "of the REST credential")
	credential := flag.String("credential", "", "of the REST credential")
	messages := flag.Int("messages", 1000, "messages to echo")
	length := flag.Duration("video", 8*time.Second, "how long video is sent")
	timeout := flag.Duration("timeout", 20*time.Second, "until all is connected and echoed")
	flag.Parse()
	config := webrtc.Configuration{
		ICEServers:         []webrtc.ICEServer{{URLs: []string{*url}, Username: *username, Credential: *credential}},
		ICETransportPolicy: webrtc.ICETransportPolicyRelay,
	}
	var r result
	if err := call(config, *messages, *length, *timeout, &r); err != nil {
		r.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(&r); err != nil {
		os.Exit(1)
	}
}

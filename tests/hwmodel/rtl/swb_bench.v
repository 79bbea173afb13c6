// A decoder with its buffer, for cocotb. KIND: 0 bitmask, 1 run_length, 2 rice.
module swb_bench #(
    parameter KIND = 0,
    parameter VALUE_BITS = 8,
    parameter WIDTH = 1,
    parameter WORD_BITS = 32,
    parameter WINDOW = 160
) (
    input  wire                        clk,
    input  wire                        reset,
    input  wire                        start,
    input  wire                        write,
    input  wire [31:0]                 address,
    input  wire [63:0]                 data,
    input  wire [31:0]                 elements,
    input  wire [5:0]                  count_bits,
    input  wire [4:0]                  gap_bits,
    input  wire [4:0]                  k,
    output wire [WIDTH-1:0]            valid,
    output wire [32*WIDTH-1:0]         position,
    output wire [VALUE_BITS*WIDTH-1:0] value,
    output wire                        done
);
    wire [31:0] place_a, place_b;
    wire [WINDOW-1:0] window_a, window_b;

    swb_buffer #(.BYTES(8192), .WORD(64), .WINDOW(WINDOW)) buffer (
        .clk(clk), .write(write), .address(address), .data(data),
        .place_a(place_a), .window_a(window_a), .place_b(place_b), .window_b(window_b)
    );

    generate
        if (KIND == 0) begin : bitmask
            swb_bitmask #(
                .VALUE_BITS(VALUE_BITS), .WIDTH(WIDTH), .WORD_BITS(WORD_BITS), .WINDOW(WINDOW)
            ) decoder (
                .clk(clk), .reset(reset), .start(start), .elements(elements),
                .place_a(place_a), .window_a(window_a), .place_b(place_b), .window_b(window_b),
                .valid(valid), .position(position), .value(value), .done(done)
            );
        end else if (KIND == 1) begin : run_length
            swb_run_length #(.VALUE_BITS(VALUE_BITS), .WIDTH(WIDTH), .WINDOW(WINDOW)) decoder (
                .clk(clk), .reset(reset), .start(start), .count_bits(count_bits),
                .gap_bits(gap_bits),
                .place_a(place_a), .window_a(window_a), .place_b(place_b), .window_b(window_b),
                .valid(valid), .position(position), .value(value), .done(done)
            );
        end else begin : rice
            assign place_b = 0;
            swb_rice #(.VALUE_BITS(VALUE_BITS), .WORD_BITS(WORD_BITS), .WINDOW(WINDOW)) decoder (
                .clk(clk), .reset(reset), .start(start), .elements(elements), .k(k),
                .place_a(place_a), .window_a(window_a),
                .valid(valid), .position(position), .value(value), .done(done)
            );
        end
    endgenerate
endmodule

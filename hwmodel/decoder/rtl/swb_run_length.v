// Decoder of one run_length chunk: the number of its entries, their gaps, their values.
//
// In the clock of `start` that number is taken over; in each clock after it WIDTH entries are decoded,
// fillers (which place a zero) included: ceil(entries / WIDTH) clocks. `done` is high in the last of
// them, and in the clock of `start` where there are none. Window a is the number and then the gaps,
// window b the values.
module swb_run_length #(
    parameter VALUE_BITS = 8,
    parameter WIDTH = 1,
    parameter WINDOW = 128   // at least WIDTH * 16, WIDTH * VALUE_BITS and 32
) (
    input  wire                        clk,
    input  wire                        reset,
    input  wire                        start,
    input  wire [5:0]                  count_bits,  // of the number of entries, up to 32
    input  wire [4:0]                  gap_bits,    // 1 to 16
    output wire [31:0]                 place_a,
    input  wire [WINDOW-1:0]           window_a,
    output wire [31:0]                 place_b,
    input  wire [WINDOW-1:0]           window_b,
    output reg  [WIDTH-1:0]            valid,
    output reg  [32*WIDTH-1:0]         position,
    output reg  [VALUE_BITS*WIDTH-1:0] value,
    output wire                        done
);
    reg running;
    reg [31:0] left, cursor, gaps_at, values_at;  // entries; next element; places of the next
    reg [4:0] bits;

    wire [31:0] entries = window_a[31:0] & ~({32{1'b1}} << count_bits);

    reg [31:0] gap, reached;
    integer lane;
    always @* begin
        gap = 0;
        reached = cursor;
        valid = 0;
        position = 0;
        value = 0;
        for (lane = 0; lane < WIDTH; lane = lane + 1)
            if (running && lane < left) begin
                gap = (window_a >> (lane * bits)) & ~({32{1'b1}} << bits);
                valid[lane] = 1;
                position[32*lane +: 32] = reached + gap;
                value[VALUE_BITS*lane +: VALUE_BITS] = window_b[VALUE_BITS*lane +: VALUE_BITS];
                reached = reached + gap + 1;
            end
    end

    assign place_a = running ? gaps_at : 0;
    assign place_b = values_at;
    assign done = running ? left <= WIDTH : start && entries == 0;

    always @(posedge clk) begin
        if (reset) begin
            running <= 0;
        end else if (!running) begin
            running <= start && entries != 0;
            left <= entries;
            bits <= gap_bits;
            cursor <= 0;
            gaps_at <= count_bits;
            values_at <= count_bits + entries * gap_bits;
        end else begin
            running <= left > WIDTH;
            left <= left - WIDTH;
            cursor <= reached;
            gaps_at <= gaps_at + WIDTH * bits;
            values_at <= values_at + WIDTH * VALUE_BITS;
        end
    end
endmodule

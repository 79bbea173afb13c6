// Decoder of one Rice chunk: for each value its gap (zeros, a one, k bits) and the value itself.
//
// In the clock of `start` the form of the chunk is taken over. In each clock after it a code is decoded
// whole, but for WORD_BITS zeros of a long one: a gap takes 1 + floor(floor(gap / 2^k) / WORD_BITS)
// clocks, the gap to the chunk's end too. `done` is high in the last of them.
module swb_rice #(
    parameter VALUE_BITS = 8,
    parameter WORD_BITS = 32,
    parameter WINDOW = 128   // at least WORD_BITS + 32 + VALUE_BITS
) (
    input  wire                  clk,
    input  wire                  reset,
    input  wire                  start,
    input  wire [31:0]           elements,
    input  wire [4:0]            k,
    output wire [31:0]           place_a,
    input  wire [WINDOW-1:0]     window_a,
    output wire                  valid,
    output wire [31:0]           position,
    output wire [VALUE_BITS-1:0] value,
    output wire                  done
);
    reg running;
    reg [31:0] cursor, count, place, zeros;  // zeros: of the code, in clocks before this one
    reg [4:0] shift;

    // where the one is
    reg found;
    reg [31:0] here;
    integer b;
    always @* begin
        found = 0;
        here = WORD_BITS;
        for (b = WORD_BITS - 1; b >= 0; b = b - 1)
            if (window_a[b]) begin
                found = 1;
                here = b;
            end
    end

    wire [WINDOW-1:0] after_one = window_a >> (here + 1);
    wire [31:0] rest = after_one[31:0] & ~({32{1'b1}} << shift);
    wire [31:0] target = cursor + ((zeros + here) << shift) + rest;
    wire [WINDOW-1:0] after_gap = after_one >> shift;

    assign place_a = place;
    assign valid = running && found && target < count;
    assign position = target;
    assign value = after_gap[VALUE_BITS-1:0];
    assign done = running ? found && target + 1 >= count : start && elements == 0;

    always @(posedge clk) begin
        if (reset) begin
            running <= 0;
        end else if (!running) begin
            running <= start && elements != 0;
            cursor <= 0;
            count <= elements;
            place <= 0;
            zeros <= 0;
            shift <= k;
        end else if (!found) begin
            zeros <= zeros + WORD_BITS;
            place <= place + WORD_BITS;
        end else begin
            running <= !done;
            zeros <= 0;
            cursor <= target + 1;
            place <= place + here + 1 + shift + VALUE_BITS;
        end
    end
endmodule
